"""A command that scores, run as a process, and the stage that it is in as far as its files tell."""

import json
import os
import subprocess
import time
from pathlib import Path

from davir_ray.storage.files import TEMPORARY

ROOT = Path(__file__).resolve().parents[2]
STAGES = {
    "prepare": "reading",
    "measure": "measuring",
    "progress": "measuring",
    "measured": "measuring",
    "rank": "ranking",
    "select": "exporting",
    "chosen": "record",
}
"""The stage that an event of a run begins."""
LONGEST = 600.0
"""Seconds that a run of the tests may take, however it is struck and however often it is started."""


class Missed(Exception):
    """There was no chance to strike."""


class Hung(Exception):
    """The run took longer than any may take."""


class Job:
    """The command of a run whose recipe, store and output lie in `folder`; it may be started again."""

    def __init__(self, command: list[str], folder: Path, address: str) -> None:
        self.command, self.folder, self.store = command, folder, folder / "store"
        self.environment = {**os.environ, "RAY_ADDRESS": address, "OMP_NUM_THREADS": "1"}
        self.starts = 0
        self.deadline = time.monotonic() + LONGEST

    def start(self) -> None:
        """Start the command."""
        self.starts += 1
        with self.out("out").open("w") as out, self.out("err").open("w") as err:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    def out(self, kind: str) -> Path:
        """Name the file of what the command prints."""
        return self.folder / f"{self.starts}.{kind}"

    def stop(self) -> None:
        """Kill the command."""
        self.process.kill()
        self.process.wait()

    def finish(self) -> dict:
        """Wait for the end; return the record, or why there is none."""
        try:
            code: int | str = self.process.wait(timeout=max(0.0, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = "hung"
        found = {"starts": self.starts, "code": code}
        if code == 0:
            return found | {"record": json.loads(self.out("out").read_text().splitlines()[-1])}
        return found | {"said": self.out("err").read_text()[-3000:]}

    def has_ended(self) -> bool:
        """Tell whether the command is over."""
        return self.process.poll() is not None

    def check_time(self, awaited: str) -> None:
        """Raise `Hung` if the command should be over by now."""
        if time.monotonic() > self.deadline:
            raise Hung(f"{LONGEST:.0f} seconds were over before {awaited}")

    def has_record(self) -> bool:
        """Tell whether the run says that it is finished."""
        return any(self.folder.glob("runs/*/record.json"))

    def stage(self, files: int) -> str:
        """Tell the stage that the run is in; `files` is how many its core-set will have."""
        lines = [line for path in self.folder.glob("runs/*/events.jsonl") for line in path.open()]
        if not lines:
            return "opening"
        if len(list(self.folder.glob("runs/*/coreset/part-*"))) >= files:
            return "record"
        return STAGES[json.loads(lines[-1])["event"]]

    def writes_soon(self, seconds: float = 1.0) -> bool:
        """Wait until a measurement is being written this very moment; tell whether that came."""
        end = time.monotonic() + seconds
        folders = [entry.path for entry in os.scandir(self.store / "measurements")]
        while time.monotonic() < end:
            if any(entry.name.startswith(TEMPORARY) for path in folders for entry in os.scandir(path)):
                return True
        return False

    def wait_for(self, stage: str, seconds: float, files: int) -> None:
        """Wait until so many seconds of a stage have gone; raise `Missed` if the run ended, `Hung` if neither came."""
        while self.stage(files) != ("measuring" if stage == "part" else stage):
            if self.has_ended():
                raise Missed(f"the run ended before {stage}")
            self.check_time(stage)
            time.sleep(0.002)
        time.sleep(seconds)
