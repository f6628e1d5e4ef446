"""Measure a chunk with an engine that may fail or die on one of its sequences.

A range of the chunk is noted down before it is measured, so the process that comes after a death knows where the
last one died. A range that failed is halved until the guilty sequence stands alone; that one is marked, and the
others are measured. A death may be chance (a preempted node), so a chunk is halved only at its third death; its
halves are under suspicion and are halved at once, and a sequence alone has one more try. A process that ends because
its engine stalled (watchdog.py) has died like any other, and says why.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from davir_ray import storage
from davir_ray.errors import DamagedPart, EngineDied, EngineError
from davir_ray.foreign_text import without_credentials
from davir_ray.progress import warn
from davir_ray.storage.sealed import read_sealed, write_sealed

Range = tuple[int, int]
T = TypeVar("T")
R = TypeVar("R")
DEATHS_ALLOWED = 2
FRUITLESS_DEATHS = 30
"""After so many deaths without one sequence measured, it is the engine's fault, or the machine's."""


@dataclass
class Journal:
    """What is still to be measured of one chunk, kept in a file that outlives the process."""

    uri: str
    size: int
    pending: list[Range] = field(default_factory=list)
    current: Range | None = None
    deaths: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    disturbed: bool = False
    measured: bool = False
    deaths_in_all: int = 0
    stalled: str = ""
    again: int = 0
    """Sequences that were begun once more, because they were among those with which a process died or failed."""

    @classmethod
    def open(cls, uri: str, size: int) -> "Journal":
        """Take up the journal at `uri`, noting the death of the process that left it, or begin one."""
        try:
            state = read_sealed(uri, "pending", "failed")
        except FileNotFoundError:
            return cls(uri, size, pending=[(0, size)])
        except DamagedPart as damage:
            warn(f"begun anew: {damage}")
            return cls(uri, size, pending=[(0, size)])
        journal = cls(
            uri,
            size,
            [(a, b) for a, b in state["pending"]],
            deaths=state["deaths"],
            failed={int(index): reason for index, reason in state["failed"].items()},
            disturbed=state["disturbed"],
            measured=state["measured"],
            deaths_in_all=state["deaths_in_all"],
            again=state["again"],
        )
        if state["current"]:
            start, stop = state["current"]
            journal._died((start, stop), state["stalled"] or "the engine died")
        return journal

    def _died(self, current: Range, how: str) -> None:
        self.deaths += 1
        self.deaths_in_all += 1
        if not self.measured and self.deaths_in_all >= FRUITLESS_DEATHS:
            raise EngineError(
                f"{how}, {self.deaths_in_all} times in one chunk, of which nothing could be measured"
            )
        start, stop = current
        allowed = DEATHS_ALLOWED if current == (0, self.size) else int(stop - start == 1)
        if self.deaths <= allowed:
            self.pending.insert(0, current)
            self.again += stop - start
        else:
            self.blame(current, f"{how}, each time it measured this sequence")

    def blame(self, suspect: Range, reason: str) -> None:
        """Halve a range that failed, or mark the one sequence in it."""
        start, stop = suspect
        self.deaths, self.disturbed = 0, True
        if stop - start == 1:
            self.failed[start] = reason
        else:
            middle = (start + stop) // 2
            self.again += stop - start
            self.pending += [
                (start, middle),
                (middle, stop),
            ]  # large ranges first: something is soon measured

    def fail(self, index: int, reason: str) -> None:
        """Mark one sequence: it was measured, and what came of it is no measurement."""
        self.disturbed = True
        self.failed[index] = reason

    def next(self) -> Range | None:
        """Take the next range, and write down that it is under way."""
        if not self.pending:
            return None
        self.current = self.pending.pop(0)
        self._save()
        return self.current

    def note_stall(self, how: str) -> None:
        """Tell the process that comes next what ended this one."""
        self.stalled = how
        self._save()

    def _save(self) -> None:
        state: dict[str, Any] = {
            "pending": self.pending,
            "current": self.current,
            "deaths": self.deaths,
            "failed": self.failed,
            "disturbed": self.disturbed,
            "measured": self.measured,
            "deaths_in_all": self.deaths_in_all,
            "stalled": self.stalled,
            "again": self.again,
        }
        write_sealed(self.uri, state)

    def close(self) -> None:
        """Forget the journal: the chunk is settled."""
        storage.delete(self.uri)


def try_ranges(
    journal: Journal, sequences: Sequence[T], measure: Callable[[Sequence[T]], R]
) -> Iterator[tuple[Range, R]]:
    """Measure every range of a chunk; yield each with its result. What cannot be measured is in `journal.failed`.

    Only `measure` is tried: an exception of whoever stores the result is not about the sequences. `EngineDied`
    passes through.
    """
    while (current := journal.next()) is not None:
        start, stop = current
        try:
            result = measure(sequences[start:stop])
        except EngineDied:
            raise
        except Exception as error:  # whatever the engine raised is about these sequences: narrow it down
            journal.blame(current, without_credentials(f"{type(error).__name__}: {error}")[:500])
        else:
            journal.deaths, journal.measured = 0, True
            yield current, result
