"""One start at a time, on any storage, without a lock that a dead process could keep.

    <folder>/00000007.json    {"id": ..., "host": ..., "pid": ..., "started": ..., "heartbeat": ..., "released": false}

The file with the highest number is the lease. Its holder renews the heartbeat; who finds it old, released or damaged,
makes the next number, which only one can. Clocks of machines may differ by a minute or two, not by more than
`STALE_SECONDS`. A night has a lease, and so has every run that is worked on.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep, time
from types import TracebackType
from typing import Any
from uuid import uuid4

from pydantic import Field, ValidationError

from davir_ray import storage
from davir_ray.errors import DamagedPart, StoreError, Unreachable
from davir_ray.progress import say, warn
from davir_ray.storage.layout import lease_file
from davir_ray.storage.sealed import read_object
from davir_ray.storage.typed import Written

BEAT_SECONDS = 20.0
STALE_SECONDS = 300.0
LOOK_SECONDS = 1.0
SECONDS_BETWEEN_LINES = 60.0
NAME_LENGTH = len("00000001.json")


class Holder(Written):
    """Who holds a lease: a start of a command."""

    id: str
    """Name of this one start."""
    host: str
    """The machine, and on Linux the set of process ids that is its own."""
    pid: int = Field(gt=0, lt=2**31)
    """Process id."""
    started: float = Field(ge=0, lt=2**37)
    """When it took the lease: seconds since 1970, before the year 6000."""
    heartbeat: float
    """When it was heard of last: seconds since 1970."""
    released: bool
    """Whether it gave the lease back."""


DAMAGED = Holder(id="", host="", pid=1, started=0.0, heartbeat=0.0, released=True)
"""What a file stands for that is no lease: nobody holds it."""


@dataclass
class Lease:
    """A lease that this process holds, for as long as the context lasts. holder: what its file says."""

    folder: str
    number: int
    holder: Holder
    _done: Event = field(default_factory=Event)
    _thread: Thread | None = None

    def held(self) -> bool:
        """Tell whether nobody has taken the lease over. Files are asked for by name: a listing may lag."""
        holder = _holder(self.folder, self.number)
        taken_over = storage.exists(lease_file(self.folder, self.number + 1))
        return holder is not None and holder.id == self.holder.id and not taken_over

    def check(self) -> None:
        """Raise `StoreError` if the lease is lost."""
        if not self.held():
            raise StoreError(
                f"{self.folder}: another start has taken over, since nothing was heard of this one for "
                f"{STALE_SECONDS:.0f} seconds; the same command waits for it"
            )

    def beat(self) -> None:
        """Renew the heartbeat."""
        self._write(heartbeat=time())

    def __enter__(self) -> "Lease":
        self._thread = Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        try:
            if self.held():
                self._write(released=True)
        except (OSError, Unreachable) as error:  # what was done is done; the lease goes stale by itself
            warn(f"the lease could not be given back: {error}")

    def _keep(self) -> None:
        """Beat until the context ends, or the lease is lost. A storage that fails once may work at the next beat."""
        while not self._done.wait(BEAT_SECONDS):
            try:
                if not self.held():
                    return warn(f"another start has taken over {self.folder}")
                self.beat()
            except (OSError, Unreachable) as error:
                warn(f"the heartbeat could not be written: {error}")

    def _write(self, **changed: Any) -> None:
        self.holder = self.holder.model_copy(update=changed)
        storage.write_atomic(lease_file(self.folder, self.number), json.dumps(self.holder.tree()).encode())


@contextmanager
def leased(folder: str, what: str) -> Iterator[Lease]:
    """Hold the lease in a folder; wait while somebody else does, and say who it is, once a minute."""
    said = float("-inf")
    while not isinstance(lease := take(folder), Lease):
        if monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = monotonic()
            say(f"{what}: another start is at work since {at_work(lease)}: waiting for it")
        sleep(LOOK_SECONDS)
    with lease:
        yield lease


def at_work(holder: Holder) -> str:
    """Say since when a holder is at work, and who it is."""
    started, heartbeat = (
        datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
        for moment in (holder.started, holder.heartbeat)
    )
    return f"{started} (process {holder.pid} on {holder.host.partition(' ')[0]}, last heard of {heartbeat})"


def take(folder: str) -> Lease | Holder:
    """Take the lease; where somebody else holds it, return what its file says."""
    newest = newest_lease(folder)
    if newest is not None and is_fresh(newest[1]):
        return newest[1]
    number, holder, found = newest[0] if newest else 0, _new_holder(), None
    while found is None or found.id != holder.id:
        if found is not None and is_fresh(found):
            return found
        number += 1
        storage.create(lease_file(folder, number), json.dumps(holder.tree()).encode())
        found = _holder(folder, number)
    newest = newest_lease(folder)
    if newest is not None and newest[0] > number:  # so slow a start that its number had been freed again
        return newest[1]
    # The newest that is listed stays, so that no listing ever falls back behind a number that is free again.
    for uri in _files(folder)[:-1]:
        storage.delete(uri)
    return Lease(folder, number, holder)


def _new_holder() -> Holder:
    now = time()
    return Holder(
        id=uuid4().hex, host=this_host(), pid=os.getpid(), started=now, heartbeat=now, released=False
    )


def _holder(folder: str, number: int) -> Holder | None:
    """Read a lease; None if there is none of this number."""
    try:
        return _read(lease_file(folder, number))
    except FileNotFoundError:
        return None


def _read(uri: str) -> Holder:
    with suppress(DamagedPart, ValidationError):
        return Holder.model_validate(read_object(uri), strict=True)
    return DAMAGED


def newest_lease(folder: str) -> tuple[int, Holder] | None:
    """Read the lease as it stands; None where there never was one."""
    for uri in reversed(_files(folder)):
        with suppress(FileNotFoundError):  # removed meanwhile by who took a later one
            return int(uri.rsplit("/", 1)[-1].removesuffix(".json")), _read(uri)
    return None


def _files(folder: str) -> list[str]:
    """List the leases by number; a file of another name is none."""
    return [uri for uri in storage.list_files(folder, ".json") if uri[-NAME_LENGTH:-5].isdecimal()]


def is_fresh(holder: Holder) -> bool:
    """Tell whether a holder is at work, as far as one can know."""
    if holder.released or not abs(time() - holder.heartbeat) <= STALE_SECONDS:
        return False
    return holder.host != this_host() or _lives(holder.pid)


def this_host() -> str:
    """Name this machine, and on Linux the set of process ids that is ours: containers may share a host's name."""
    with suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    return socket.gethostname()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with suppress(OSError):  # Linux: one that is dead keeps its number until its parent has heard of it
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
