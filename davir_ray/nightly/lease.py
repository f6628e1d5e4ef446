"""One start at a time, on any storage, without a lock that a dead process could keep.

    <folder>/00000007.json    {"id": ..., "host": ..., "pid": ..., "started": ..., "heartbeat": ..., "released": false}

The file with the highest number is the lease. Its holder renews the heartbeat; who finds it old, or released, makes the
next number, which only one can. Clocks of machines may differ by a minute or two, not by more than `STALE_SECONDS`.
"""

import json
import os
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from time import time
from types import TracebackType
from typing import Any
from uuid import uuid4

from davir_ray import storage
from davir_ray.errors import Unreachable
from davir_ray.observe.progress import say

BEAT_SECONDS = 20.0
STALE_SECONDS = 300.0

Holder = dict[str, Any]


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
        taken_over = storage.exists(_uri(self.folder, self.number + 1))
        return holder is not None and holder["id"] == self.holder["id"] and not taken_over

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
            say(f"the lease could not be given back: {error}")

    def _keep(self) -> None:
        """Beat until the context ends, or the lease is lost. A storage that fails once may work at the next beat."""
        while not self._done.wait(BEAT_SECONDS):
            try:
                if not self.held():
                    return say(f"another start has taken over {self.folder}")
                self.beat()
            except (OSError, Unreachable) as error:
                say(f"the heartbeat could not be written: {error}")

    def _write(self, **changed: Any) -> None:
        self.holder = self.holder | changed
        storage.write_atomic(_uri(self.folder, self.number), json.dumps(self.holder).encode())


def take(folder: str) -> Lease | Holder:
    """Take the lease; where somebody else holds it, return what its file says."""
    newest = newest_lease(folder)
    if newest is not None and is_fresh(newest[1]):
        return newest[1]
    number, holder, found = newest[0] if newest else 0, _new_holder(), None
    while found is None or found["id"] != holder["id"]:
        if found is not None and is_fresh(found):
            return found
        number += 1
        storage.create(_uri(folder, number), json.dumps(holder).encode())
        found = _holder(folder, number)
    newest = newest_lease(folder)
    if newest is not None and newest[0] > number:  # so slow a start that its number had been freed again
        return newest[1]
    # The newest that is listed stays, so that no listing ever falls back behind a number that is free again.
    for uri in storage.list_files(folder, ".json")[:-1]:
        storage.delete(uri)
    return Lease(folder, number, holder)


def _new_holder() -> Holder:
    names = {"id": uuid4().hex, "host": this_host(), "pid": os.getpid()}
    return names | {"started": time(), "heartbeat": time(), "released": False}


def _holder(folder: str, number: int) -> Holder | None:
    """Read a lease; None if there is none of this number."""
    try:
        holder: Holder = json.loads(storage.read_bytes(_uri(folder, number)))
    except FileNotFoundError:
        return None
    return holder


def newest_lease(folder: str) -> tuple[int, Holder] | None:
    """Read the lease as it stands; None where there never was one."""
    for uri in reversed(storage.list_files(folder, ".json")):
        with suppress(FileNotFoundError):  # removed meanwhile by who took a later one
            return int(uri.rsplit("/", 1)[-1].removesuffix(".json")), json.loads(storage.read_bytes(uri))
    return None


def is_fresh(holder: Holder) -> bool:
    """Tell whether a holder is at work, as far as one can know."""
    if holder["released"] or time() - holder["heartbeat"] > STALE_SECONDS:
        return False
    return holder["host"] != this_host() or _lives(holder["pid"])


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
    return True


def _uri(folder: str, number: int) -> str:
    return storage.join(folder, f"{number:08d}.json")
