"""A full disk stops a run, which can go on."""

import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.ray.kill_rounds import Outcome, command_of, environment, write_corpus

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.nightly]


def models_beside(folder: Path, models: tuple[str, str]) -> None:
    for name, model in zip(("base", "reference"), models, strict=True):
        shutil.copytree(model, folder / "models" / name)


@pytest.fixture
def disk(tmp_path):
    """A disk of its own, of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> Path:
    """Write until nothing more can be written."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))
    assert os.statvfs(disk).f_bavail == 0
    return ballast


def fill_while_measuring(command: list[str], disk: Path) -> tuple[Path, int, str]:
    """Run a command, fill the disk when it has measured three chunks; return its exit code and what it said."""
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 200
    while len(list(disk.glob("store/measurements/*/[0-9a-f]*.parquet"))) < 3:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "nothing was measured"
        time.sleep(0.01)
    ballast = fill(disk)
    said = process.communicate(timeout=200)[1]
    return ballast, process.returncode, said


def finish(command: list[str]) -> dict:
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_full_disk_stops_a_run_which_goes_on_once_there_is_room(tmp_path, disk, tiny_models):
    corpus = write_corpus(tmp_path / "corpus", 8, 6)
    for name in ("full", "calm"):
        models_beside(tmp_path / name, tiny_models)
    command = [*command_of(tmp_path / "full", corpus, "NotedHash"), "--set", f"store={disk / 'store'}"]
    ballast, code, said = fill_while_measuring(command, disk)
    assert code == 6, said
    last = said.splitlines()[-1]
    assert last.startswith(f"error: {disk}/store/measurements/"), said
    assert last.endswith("the storage fails: OSError: [Errno 28] No space left on device")
    ballast.unlink()
    resumed = Outcome(tmp_path / "full", {"record": finish(command)})
    calm = Outcome(tmp_path / "calm", {"record": finish(command_of(tmp_path / "calm", corpus, "QuickHash"))})
    assert resumed.tables() == calm.tables()
    in_line = 2 * (os.cpu_count() or 1)  # Ray Data gives each engine the next chunk while it has one in hand
    assert resumed.again() <= in_line, "more than was in hand when the disk was full"
