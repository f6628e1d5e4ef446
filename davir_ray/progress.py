"""What a command says while it works: notes, warnings, and how far a stage is, how fast, and how long the rest takes.

In a terminal the progress of a stage is one line that renews itself; elsewhere, as in a job's log, a line a minute.
All of it goes to stderr: stdout is kept for results.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from threading import Event, Thread

from davir_ray.foreign_text import shown

SECONDS_BETWEEN_LINES = 60.0
"""The log of a job is not flooded."""
RENEWED_A_SECOND = 2.0
"""How often the line of a terminal renews itself."""

_quiet = False


@dataclass
class Progress:
    """Progress of one stage towards `total` units, told while `telling` lasts. clock: seconds that never go back."""

    stage: str
    total: int
    unit: str
    done: int = 0
    rows: int = 0
    size: int = 0
    clock: Callable[[], float] = time.monotonic
    started: float = field(init=False)
    _first: tuple[float, int, int] | None = None

    def __post_init__(self) -> None:
        self.started = self.clock()

    def add(self, amount: int, rows: int = 0, size: int = 0) -> None:
        """Note that so many more units are done, with their rows and bytes."""
        self.done += amount
        self.rows += rows
        self.size += size
        if self._first is None:
            self._first = (self.clock(), self.done, self.rows)

    def telling(self) -> AbstractContextManager[None]:
        """Tell of the stage while the context lasts, and at its end."""
        return telling(self.line)

    def line(self) -> str:
        """Describe the state as it is now."""
        seconds = self.clock() - self.started
        share = self.done / max(self.total, 1)
        text = f"{self.stage}: {self.done:,} of {self.total:,} {self.unit} ({share:.0%})"
        if not self.done:
            return f"{text}, {duration(seconds)} so far"
        text += f", {_rate(self.speed)} {self.unit}/s"
        if self.rows:
            text += f", {_rate(self._speeds()[1])} rows/s"
        if self.size:
            text += f", {data_size(self.size)}"
        left = (self.total - self.done) / self.speed
        return (
            f"{text}, in {duration(seconds)}" if self.done >= self.total else f"{text}, {duration(left)} left"
        )

    @property
    def speed(self) -> float:
        """Units a second."""
        return self._speeds()[0]

    def _speeds(self) -> tuple[float, float]:
        """Units and rows a second, since the first were done: before that, engines load.

        Over the whole time where only those are done, and at the end.
        """
        since, done, rows = self._first or (self.started, 0, 0)
        if self.done == done or self.done >= self.total:
            since, done, rows = self.started, 0, 0
        seconds = max(self.clock() - since, 1e-9)
        return (self.done - done) / seconds, (self.rows - rows) / seconds


def telling(line: Callable[[], str]) -> AbstractContextManager[None]:
    """Tell how far something is while the context lasts, and at its end. line: says so, in any thread."""
    if _quiet:
        return nullcontext()
    return _renewed(line) if sys.stderr.isatty() else _each_minute(line)


@contextmanager
def _renewed(line: Callable[[], str]) -> Iterator[None]:
    """Keep one line of the terminal up to date, below whatever else is printed."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def text() -> Text:
        return Text(shown(line()), no_wrap=True, overflow="ellipsis")

    with Live(get_renderable=text, console=Console(stderr=True), refresh_per_second=RENEWED_A_SECOND):
        yield


@contextmanager
def _each_minute(line: Callable[[], str]) -> Iterator[None]:
    """Print a line a minute, and a last one unless an error ends it: that stands alone."""
    over = Event()

    def tell() -> None:
        while not over.wait(SECONDS_BETWEEN_LINES):
            say(line())

    thread = Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    say(line())


@contextmanager
def quietly() -> Iterator[None]:
    """Let this process say nothing but warnings, while the context lasts."""
    global _quiet
    before, _quiet = _quiet, True
    try:
        yield
    finally:
        _quiet = before


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def duration(seconds: float) -> str:
    """Write seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02d}h"
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def ago(seconds: float | None) -> str:
    """Write how long ago something was; None if it never was."""
    return "never" if seconds is None else f"{duration(max(seconds, 0))} ago"


def data_size(count: float) -> str:
    """Write bytes as people say them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def say(line: str) -> None:
    """Print a line for people, safe to look at, unless they want it quiet."""
    if not _quiet:
        print(shown(line), file=sys.stderr, flush=True)


def warn(line: str) -> None:
    """Print what people have to know even where they want it quiet."""
    print(shown(f"warning: {line}"), file=sys.stderr, flush=True)
