"""Looks that may never end, each with a limit: a name server, a network disk or an object store may not answer."""

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import TypeVar

from davir_ray.doctor.finding import Finding

T = TypeVar("T")

AGAIN = "davir doctor  # once more: a busy machine, the network or a disk may be why"
SECONDS = 120.0
"""How long a look may take: a busy machine needs a minute for what an idle one does in a second."""
LEFT: list[Thread] = []
"""What was not done in time. A process with such a thread may never end by itself: `os._exit` ends it."""


def look_in_time(name: str, look: Callable[[], Finding], seconds: float | None = None) -> Finding:
    """Return what a look at one thing finds, or that it did not end in time. seconds: SECONDS if none are said."""
    try:
        return within(SECONDS if seconds is None else seconds, look)
    except TimeoutError as error:
        return Finding(name, "wrong", "", str(error), AGAIN)


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what some work returns, or raise what it raises. Raises `TimeoutError` if it is not done in time.

    What is not done goes on in a thread, and in those that it began, which Python waits for at its end: see `LEFT`.
    """
    future: Future[T] = Future()
    thread = Thread(target=_do, args=(work, future), daemon=True)
    thread.start()
    wait([future], seconds)
    if not future.done():
        LEFT.append(thread)
        raise TimeoutError(f"not done after {seconds:.0f} seconds")
    return future.result()


def _do(work: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
