"""Load an engine, and give up where its process never lives through it: Ray would start it again for ever."""

from collections.abc import Callable
from typing import TypeVar

from davir_ray import storage
from davir_ray.errors import EngineDied, EngineError
from davir_ray.measure.watchdog import Watchdog

LOADS = 3
LOAD_SECONDS = 600.0
"""What loading may take at least before it counts as stalled: a large model comes from a slow disk, or is compiled."""

E = TypeVar("E")


def load_watched(mark: str, load: Callable[[], E], stall_seconds: float) -> E:
    """Load an engine. mark: a URI that outlives the process, where its attempts are counted.

    A process that stalls on it ends. Raises `EngineError` at the attempt after the last that is allowed; after an
    `EngineDied` of `load` the process is to end: that counts, and the reason is kept for the next.
    """
    died, _ = deaths_while_loading(mark)
    if died >= LOADS:
        raise EngineError(f"the engine's process died or stalled {died} times while it loaded the model")
    storage.write_atomic(mark, str(died + 1).encode())
    watchdog = Watchdog(max(stall_seconds, LOAD_SECONDS))
    try:
        loaded = watchdog.watch(lambda _: load(), lambda _: None)(None)
    except EngineDied as error:
        storage.write_atomic(mark, f"{died + 1} {error}".encode())
        raise
    except BaseException:
        storage.delete(mark)
        raise
    storage.delete(mark)
    return loaded


def deaths_while_loading(mark: str) -> tuple[int, str]:
    """Count the processes that died or stalled while they loaded the engine, and return what the last could say."""
    if not storage.exists(mark):
        return 0, ""
    count, _, why = storage.read_bytes(mark).decode().partition(" ")
    return int(count), why
