"""A line of progress now and then: what is done, how fast, and how long the rest will take."""

import sys
import time
from dataclasses import dataclass, field

from davir_ray.foreign_text import shown

SECONDS_BETWEEN_LINES = 10.0 if sys.stderr.isatty() else 60.0
"""A terminal is told often; the log of a job is not flooded."""


@dataclass
class Progress:
    """Progress of one stage towards `total` units."""

    stage: str
    total: int
    unit: str
    done: int = 0
    rows: int = 0
    size: int = 0
    started: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)

    def add(self, amount: int, rows: int = 0, size: int = 0) -> None:
        """Note that so many more units are done, with their rows and bytes, and print a line if it is time to."""
        self.done += amount
        self.rows += rows
        self.size += size
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES or (self.done >= self.total and amount):
            self._last = now
            say(f"{self.stage}: {self.line(now)}")

    def line(self, now: float) -> str:
        """Describe the state at a time of the monotonic clock."""
        seconds = max(now - self.started, 1e-9)
        left = (self.total - self.done) * seconds / self.done if self.done else 0.0
        share = self.done / max(self.total, 1)
        text = f"{self.done:,} of {self.total:,} {self.unit} ({share:.0%}), {_rate(self.done, seconds)} {self.unit}/s"
        if self.rows:
            text += f", {_rate(self.rows, seconds)} rows/s"
        if self.size:
            text += f", {data_size(self.size)}"
        return text if self.done >= self.total else f"{text}, {duration(left)} left"


def _rate(count: int, seconds: float) -> str:
    rate = count / seconds
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
    """Print a line for people, safe to look at; stdout is kept for results."""
    print(shown(line), file=sys.stderr, flush=True)
