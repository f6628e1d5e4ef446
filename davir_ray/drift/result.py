"""What a comparison of two runs found, as drift.json holds it and `davir nightly --json` prints it."""

from typing import Literal

from pydantic import Field

from davir_ray.runs.changes import Change
from davir_ray.storage.typed import Written


class RowsCompared(Written):
    """Rows of the two runs, joined by content."""

    before: int
    """Rows of the earlier run; repeats of one content count once."""
    after: int
    """Rows of the later run; repeats of one content count once."""
    both: int
    """Rows that are in both."""


class CoreSetsCompared(Written):
    """The core-sets of the two runs."""

    before: int
    """Rows in the core-set of the earlier run."""
    after: int
    """Rows in the core-set of the later run."""
    both: int
    """Rows in both core-sets."""
    change: float
    """Part of the rows in either core-set that are in one alone, 0 to 1."""
    came: dict[str, int] = Field(alias="in")
    """Cause (`data`, `status`, `model`, `measuring`, `rule`, `others`) -> rows that came into the core-set."""
    went: dict[str, int] = Field(alias="out")
    """Cause -> rows that went out of the core-set."""


class ScoresCompared(Written):
    """The spread of the scores of one source: the lowest, the nine deciles, the highest."""

    before: tuple[float, ...] | None
    """In the earlier run; null if it does not have the source."""
    after: tuple[float, ...] | None
    """In the later run; null if it does not have the source."""


class Drift(Written):
    """What changed from one run to another."""

    schema_version: Literal[1] = 1
    """Version of this layout. A reader refuses another one."""
    before: str
    """Name of the earlier run."""
    after: str
    """Name of the later run."""
    changes: tuple[Change, ...]
    """What differs between the runs besides their rows."""
    rows: RowsCompared
    """Their rows."""
    core_set: CoreSetsCompared
    """Their core-sets."""
    rank_correlation: float | None
    """Spearman's rank correlation over rows that both ranked; null for fewer than two."""
    rank_correlation_rows: int
    """Rows that the rank correlation is over: all that both ranked, or of many a sample drawn by content."""
    ranked_in_both: int
    """Rows that both ranked."""
    scores: dict[str, ScoresCompared]
    """Source of the corpus -> the spread of its scores."""
