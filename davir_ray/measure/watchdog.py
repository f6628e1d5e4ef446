"""Notice an engine that does not answer: a kernel that hangs, a lost peer of a collective, a deadlock.

Nothing can be done with such an engine from within its process, so the process ends, as it does when an engine dies,
and with it whatever processes the engine started: they may hold the accelerator.
"""

import faulthandler
import os
from collections.abc import Callable
from contextlib import suppress
from threading import Timer
from typing import TypeVar

import psutil

from davir_ray.progress import warn

FIRST_CALL = 2.0
"""How many times the limit the first call of an engine may take: it may compile, or warm up."""

GRACE_SECONDS = 30.0
"""What noting a stall may take before the process ends without it."""

STDERR = 2
"""Where tracebacks go, by its number: `sys.stderr` may be anything in a worker."""

T = TypeVar("T")
R = TypeVar("R")


class Watchdog:
    """Watches calls of one engine. seconds: what a call may take. end: how the process ends."""

    def __init__(self, seconds: float, end: Callable[[], None] | None = None) -> None:
        self.seconds = seconds
        self.end = end or end_process
        self.limit = seconds * FIRST_CALL

    def watch(self, call: Callable[[T], R], stalled: Callable[[str], None]) -> Callable[[T], R]:
        """Return the same call, watched. stalled: is told in words, in another thread, before the process ends."""

        def watched(argument: T) -> R:
            timer = Timer(self.limit, self._give_up, [stalled])
            timer.daemon = True
            timer.start()
            # Its clock needs no Python: a call that keeps the interpreter to itself stops every other thread.
            faulthandler.dump_traceback_later(self.limit + 2 * GRACE_SECONDS, exit=True, file=STDERR)
            try:
                return call(argument)
            finally:
                timer.cancel()
                faulthandler.cancel_dump_traceback_later()
                self.limit = self.seconds

        return watched

    def _give_up(self, stalled: Callable[[str], None]) -> None:
        backstop = Timer(GRACE_SECONDS, self.end)  # the storage may stall, too
        backstop.daemon = True
        backstop.start()
        warn(f"the engine has not answered for {self.limit:g} seconds; this is where it is:")
        faulthandler.dump_traceback(file=STDERR)
        try:
            stalled(f"the engine stalled: no answer within {self.limit:g} seconds")
        finally:
            backstop.cancel()
            self.end()


def end_process() -> None:
    """End this process and all that it started, at once."""
    try:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it may have gone with the one before
                child.kill()
    finally:
        os._exit(1)
