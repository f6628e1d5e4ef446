"""Two finished runs joined by row: who is in one core-set alone and why, and how their rankings agree.

What is held are the rows of the two core-sets, and a sample of both rankings for their correlation.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from davir_ray import storage
from davir_ray.coreset.rank_correlation import SAMPLE_ROWS, RankSample
from davir_ray.drift.causes import SIDE, Cause, Night, beside, causes
from davir_ray.errors import RecipeError
from davir_ray.ids import Keys, find, keys_of
from davir_ray.report.figures import scan, with_file_names
from davir_ray.report.sample import LowestIds
from davir_ray.runs.changes import Change, changes
from davir_ray.runs.history import PastRun, past_run
from davir_ray.runs.run import Run
from davir_ray.schema import SCORED, Status
from davir_ray.storage.layout import RunLayout

SHOWN = 50
"""Rows that a comparison keeps of those that a core-set has alone."""
COLUMNS = (*SIDE.names, "status", "dropped_by", "source", "file", "row", "num_tokens")
EMPTY = pa.schema(
    [pa.field(name, pa.string() if name == "file" else SCORED.field(name).type) for name in COLUMNS]
).empty_table()
ABSENT = "not in its corpus"
"""Why a row is not in a core-set, beside rules and statuses."""


@dataclass(frozen=True)
class Apart:
    """A row that is in one core-set alone.

    row: as the scored table of the run that chose it has it. rank_there: in the other run; None without one. why: what
    left it out there: a rule, a status, or ABSENT. cause: what of the two runs made the difference.
    """

    row: dict[str, Any]
    rank_there: int | None
    why: str
    cause: Cause


@dataclass(frozen=True)
class Alone:
    """The rows that one core-set has and the other has not.

    why, cause: see `Apart`, counted over all of them. first: the first SHOWN by rank.
    """

    rows: int
    why: Counter[str]
    cause: Counter[str]
    first: tuple[Apart, ...]


@dataclass(frozen=True)
class Comparison:
    """How the core-sets and rankings of two runs relate; rows are joined by content.

    correlation: Spearman's, of the ranks of rows that both ranked; None for fewer than two. Over `correlation_rows`:
    all, or of many a sample drawn by content. only: of the first core-set, and of the second.
    """

    one: PastRun
    other: PastRun
    changes: tuple[Change, ...]
    both: int
    correlation: float | None
    correlation_rows: int
    only: tuple[Alone, Alone]

    @property
    def change(self) -> float:
        """Part of the rows in either core-set that are in one alone, 0 to 1."""
        alone = sum(one.rows for one in self.only)
        return alone / (alone + self.both) if alone else 0.0


def finished(folder: str) -> PastRun:
    """Open a finished run. Raises `RecipeError`."""
    run = Run.existing(folder)
    if (past := past_run(run.folder)) is None:
        raise RecipeError(f"{folder}: is not finished, or not whole; {run.resume} goes on with it")
    return past


@dataclass(frozen=True)
class Compared:
    """Two runs or more, and each but the first beside the first. overlaps: rows that two core-sets share [R, R]."""

    runs: tuple[PastRun, ...]
    pairs: tuple[Comparison, ...]
    overlaps: NDArray[np.int64]

    @property
    def names(self) -> list[str]:
        """What to call each run: its title; of runs that share a label the run's own name comes first."""
        labels = [run.recipe.get("label") for run in self.runs]
        return [
            f"{run.run_id} ({label})" if label and labels.count(label) > 1 else run.title
            for run, label in zip(self.runs, labels, strict=True)
        ]

    @property
    def made_up(self) -> str:
        """Name the runs whose numbers mean nothing, by their places from 1; empty if there are none."""
        places = [str(at) for at, run in enumerate(self.runs, start=1) if run.record.engine.type == "hash"]
        return f"run{'s' * (len(places) > 1)} {', '.join(places)}" if places else ""

    def mean_tokens(self, index: int) -> float | None:
        """Return the mean response tokens of a run's core-set; None of an empty one."""
        record = self.runs[index].record
        return record.tokens / record.selected if record.selected else None


def compared(folders: Sequence[str]) -> Compared:
    """Compare finished runs. Raises `RecipeError` for a folder that holds none."""
    runs = tuple(map(finished, folders))
    keys = [chosen_keys(parts_of(run)) for run in runs]
    overlaps = [[len(np.intersect1d(one, other, assume_unique=True)) for other in keys] for one in keys]
    return Compared(runs, tuple(compare(runs[0], run) for run in runs[1:]), np.array(overlaps))


def compare(one: PastRun, other: PastRun) -> Comparison:
    """Join two finished runs by row."""
    parts = [parts_of(one), parts_of(other)]
    either = np.union1d(chosen_keys(parts[0]), chosen_keys(parts[1]))
    (rows, ranks), (rows_there, ranks_there) = (_read(some, either) for some in parts)
    changed = changes(one.record, other.record, one.recipe, other.recipe)
    here, there = beside(rows.select(SIDE.names), rows_there.select(SIDE.names))
    cause = causes(here, there, {change.what for change in changed})
    correlation = correlated(ranks, ranks_there)
    return Comparison(
        one=one,
        other=other,
        changes=changed,
        both=int(np.count_nonzero(here.selected & there.selected)),
        correlation=correlation.correlation(),
        correlation_rows=len(correlation),
        only=(
            alone(here, there, cause, rows, rows_there),
            alone(there, here, cause, rows_there, rows),
        ),
    )


def parts_of(run: PastRun) -> list[str]:
    """List the parts of a run's scored table, in rank order."""
    return storage.list_files(RunLayout(run.folder).scored, ".parquet")


def chosen_keys(parts: Sequence[str]) -> Keys:
    """Return the example ids of a core-set, sorted."""
    keys = [
        keys_of(table.filter(table["selected"])["example_id"])
        for table in scan(parts, ("example_id", "selected"))
    ]
    return np.unique(np.concatenate([np.array([], dtype="S16"), *keys]))


def _read(parts: Sequence[str], wanted: Keys) -> tuple[pa.Table, pa.Table | None]:
    """Return the rows of a scored table that are wanted, each once; and the ranks of a sample of all."""
    ranks, found = LowestIds(SAMPLE_ROWS), [EMPTY]
    for table in scan(parts, COLUMNS):
        table = table.filter(pc.not_equal(table["status"], str(Status.DUPLICATE)))
        ranks.add(table.filter(pc.is_valid(table["rank"])).select(["example_id", "rank"]))
        found.append(table.filter(pa.array(find(keys_of(table["example_id"]), wanted) >= 0)))
    rows = pa.concat_tables([with_file_names(table) for table in found], promote_options="default")
    return _each_once(rows), ranks.rows


def _each_once(rows: pa.Table) -> pa.Table:
    """Sort rows by id; of several with one content, the one with a rank stays."""
    keys = keys_of(rows["example_id"])
    order = np.lexsort((np.asarray(rows["rank"].is_null()), keys))
    _, first = np.unique(keys[order], return_index=True)
    return rows.take(pa.array(order[first]))


def correlated(one: pa.Table | None, other: pa.Table | None) -> RankSample:
    """Return the ranks of the rows that two samples share: the lowest ids of both rankings, so all up to some id."""
    sample = RankSample()
    if one is None or other is None:
        return sample
    keys, there = keys_of(one["example_id"]), keys_of(other["example_id"])
    index = find(keys, there)
    both = index >= 0
    sample.add(keys[both], one["rank"].to_numpy()[both], other["rank"].to_numpy()[index[both]])
    return sample


def alone(
    here: Night, there: Night, cause: NDArray[np.object_], rows: pa.Table, rows_there: pa.Table
) -> Alone:
    """Tell of the rows that the core-set `here` has alone. rows: of each run, sorted by id."""
    at = np.flatnonzero(here.selected & ~there.selected)
    at = at[np.argsort(here.rank[at], kind="stable")]
    index = find(here.ids[at], keys_of(rows_there["example_id"]))
    why = _why(rows_there.take(pa.array(np.maximum(index, 0), mask=index < 0)))
    own = rows.take(pa.array(find(here.ids[at[:SHOWN]], keys_of(rows["example_id"])))).to_pylist()
    first = (
        Apart(
            row | {"example_id": row["example_id"].hex()},
            int(there.rank[place]) or None,
            reason,
            cause[place],
        )
        for row, place, reason in zip(own, at, why, strict=False)
    )
    return Alone(len(at), Counter(why), Counter(map(str, cause[at])), tuple(first))


def _why(rows: pa.Table) -> list[str]:
    """Say what left rows out: a rule, or their status; rows that are not there are all null."""
    return pc.coalesce(rows["dropped_by"], rows["status"], pa.scalar(ABSENT)).to_pylist()  # type: ignore[no-any-return]
