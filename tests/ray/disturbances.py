"""What befalls a training in a test: its checkpoints are waited for, its workers found."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


def checkpoints(folder: Path) -> set[Path]:
    """List the checkpoints of the trainings whose runs lie in a folder."""
    return set(folder.glob("runs/*/checkpoints/checkpoint_20*"))


def wait_for_checkpoint(folder: Path, alive: Callable[[], bool] = lambda: True, seconds: float = 400) -> None:
    """Wait until Ray Train has taken note of the first checkpoint, up to two seconds after it was written."""
    end = time.monotonic() + seconds
    while not list(folder.glob("runs/*/checkpoints/checkpoint_manager_snapshot.json")):
        assert time.monotonic() < end, "there was no checkpoint"
        assert alive(), "the training ended before it was disturbed"
        time.sleep(0.02)


def train_workers(pid: int | None = None) -> list[psutil.Process]:
    """Find the processes that train among the descendants of a process, by default of this one."""
    return workers("RayTrainWorker", pid)


def workers(name: str, pid: int | None = None) -> list[psutil.Process]:
    """Find the processes of Ray that hold an actor of a class, among the descendants of a process."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if name in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:  # it ended meanwhile
            continue
    return sorted(found, key=lambda worker: worker.pid)


@contextmanager
def disturbed(folder: Path, strike: Callable[[], None]) -> Iterator[None]:
    """Strike once, in the middle of a training whose run lies in `folder`; raise if there was no chance to."""
    struck = threading.Event()
    over = threading.Event()

    def watch() -> None:
        wait_for_checkpoint(folder, alive=lambda: not over.is_set())
        strike()
        struck.set()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    assert struck.is_set(), "nothing befell this training"
