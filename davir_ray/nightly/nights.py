"""What each night left behind.

<output>/nightly/<name>/nights.jsonl    a line a night
<output>/nightly/<name>/lease/          see ../lease.py
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from davir_ray.drift.result import Drift
from davir_ray.errors import DamagedPart, StoreError
from davir_ray.runs.lease import Holder
from davir_ray.runs.record import JobRecord, RunRecord
from davir_ray.schema import SCORABLE, Status
from davir_ray.storage.json_lines import read_lines, write_lines
from davir_ray.storage.layout import NightsLayout
from davir_ray.storage.typed import Written, parsed

WITHOUT_NIGHTS = (
    "take the line out, or put back a copy of the file; without it, the next night is the first one"
)

FINE = (*SCORABLE, Status.DUPLICATE, Status.UNDESIRABLE)
"""A row of any other status failed: something should have been scored, and was not."""


class DriftInShort(Written):
    """What a night changed, in short; drift.json of its run has all of it."""

    before: str
    """Name of the run that was compared with."""
    changed: tuple[str, ...]
    """What differs between the runs besides their rows: `base`, `reference`, `engine`, or sections of the recipe."""
    coreset_change: float
    """Part of the rows in either core-set that are in one alone, 0 to 1."""
    came: dict[str, int] = Field(alias="in")
    """Cause -> rows that came into the core-set."""
    went: dict[str, int] = Field(alias="out")
    """Cause -> rows that went out of the core-set."""
    rank_correlation: float | None
    """Spearman's rank correlation over the rows that both ranked; null for fewer than two."""


class NightLine(Written):
    """A line of nights.jsonl: what one night did."""

    schema_version: Literal[1] = 1
    """Version of this layout. A reader refuses another one."""
    time: str
    """When the night was done: ISO 8601, UTC."""
    run_id: str
    """Name of its run."""
    rows: int
    """Rows of the corpus."""
    ranked: int
    """Rows that have a score, and so a rank."""
    selected: int
    """Rows that were chosen."""
    seconds: float
    """Wall-clock seconds of the start that finished the run."""
    bad_files: int
    """Files of the corpus that were left out."""
    failed: int
    """Rows that should have been scored, and were not."""
    measured: dict[str, int]
    """Model label -> sequences that this night measured."""
    reused: dict[str, int]
    """Model label -> sequences that the store held."""
    drift: DriftInShort | None
    """What changed since the night before; null where there is none to compare with."""
    past_limits: tuple[str, ...] = ()
    """Limits of the recipe that the night went past, as sentences."""


class NightRecord(JobRecord):
    """What `davir nightly` did: the record of the run, and what became of the night."""

    night: NightLine
    """The line of nights.jsonl."""
    drift: Drift | None
    """The comparison with the night before; null where there is none."""
    past_limits: tuple[str, ...]
    """Limits of the recipe, as it is now, that the night went past, as sentences."""
    is_new: bool
    """Whether this start wrote the line; false if an earlier one did."""


class Busy(Written):
    """What `davir nightly` says while another start is at work."""

    busy: Holder
    """Who is at work."""


@dataclass(frozen=True)
class Nights:
    """The nights of a recipe's name. `folder` is `<output>/nightly/<name>`."""

    folder: str

    @property
    def lease_folder(self) -> str:
        """Where the lease is."""
        return NightsLayout(self.folder).lease

    @property
    def uri(self) -> str:
        """Name the file of lines."""
        return NightsLayout(self.folder).lines

    def read(self) -> list[NightLine]:
        """Read all nights, the latest last. Raises `StoreError` if a line is none: nothing makes it again."""
        try:
            lines = enumerate(read_lines(self.uri), 1)
            return [parsed(NightLine, line, self.uri, f"line {number}: ") for number, line in lines]
        except DamagedPart as damage:
            raise StoreError(f"{damage}; {WITHOUT_NIGHTS}") from damage

    def add(self, night: NightLine) -> None:
        """Add a line. The caller holds the lease."""
        write_lines(self.uri, [one.tree() for one in (*self.read(), night)])


def night_of(record: RunRecord, drift: Drift | None, *, measured_before: bool) -> NightLine:
    """Sum a night up. measured_before: the run was an earlier night's, so this night measured nothing."""
    asked = {label: count + record.reused[label] for label, count in record.measured.items()}
    return NightLine(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        run_id=record.run_id,
        rows=record.rows,
        ranked=record.ranked,
        selected=record.selected,
        seconds=record.seconds,
        bad_files=len(record.bad_files),
        failed=sum(count for status, count in record.status.items() if status not in FINE),
        measured=dict.fromkeys(asked, 0) if measured_before else record.measured,
        reused=asked if measured_before else record.reused,
        drift=None if drift is None else _short(drift),
    )


def _short(drift: Drift) -> DriftInShort:
    return DriftInShort(
        before=drift.before,
        changed=tuple(dict.fromkeys(one.what for one in drift.changes)),
        coreset_change=drift.core_set.change,
        came=drift.core_set.came,
        went=drift.core_set.went,
        rank_correlation=drift.rank_correlation,
    )
