"""The processes of a Ray cluster on this machine, by what they do; and their end."""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from davir_ray.storage.files import TEMPORARY

OF_RAY = ("Agent", "Tracker", "Actor", "Requester")
"""What names processes of Ray's own, which no user's code runs in."""
ENGINES = {"reading": "SplitPreparer", "measuring": "ChunkMeasurer", "part": "ChunkMeasurer"}
"""Which class of ours an actor holds, by stage."""


@dataclass(frozen=True)
class Process:
    """A process. title: what Ray says that it does, such as `ray::score_split`."""

    pid: int
    title: str

    def writes(self, folder: Path) -> bool:
        """Tell whether it has a half-written file open under a folder."""
        with suppress(OSError):
            for link in Path(f"/proc/{self.pid}/fd").iterdir():
                with suppress(OSError):
                    path = os.readlink(link)
                    if path.startswith(str(folder)) and TEMPORARY in path:
                        return True
        return False


def workers_of(raylet: int) -> list[Process]:
    """List the processes that a node runs tasks and actors in."""
    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(raylet).children():
            with suppress(psutil.Error):
                found.append(Process(child.pid, " ".join(child.cmdline()).strip()))
    return [one for one in found if one.title.startswith("ray::") and not any(w in one.title for w in OF_RAY)]


def is_engine(process: Process, stage: str) -> bool:
    """Tell whether it is an actor that works in this stage."""
    return stage in ENGINES and ENGINES[stage] in process.title


def is_task(process: Process, idle: bool = False) -> bool:
    """Tell whether it runs a task, or waits for one if `idle`."""
    return "MapWorker" not in process.title and (("IDLE" in process.title) == idle)


def kill(process: Process) -> str | None:
    """End a process as a lost machine would; return what it did, or None if it was gone."""
    try:
        os.kill(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return process.title
