"""The numbers of a page, from the scored table a part at a time: what is held does not grow with the rows."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from davir_ray import storage
from davir_ray.coreset.rank_correlation import SAMPLE_ROWS
from davir_ray.coreset.rules.rule import tokens_in
from davir_ray.report.sample import LowestIds
from davir_ray.report.shares import Shares
from davir_ray.scores.score import Floats

COUNTS = ("source", "group", "status", "num_tokens", "rank", "selected")
NUMBERS = ("example_id", "base_loss", "reference_loss", "num_tokens", "score", "rank", "selected")
PLACES = ("id", "file", "row", "source", "group", "percentile")
BINS = 60
TAIL = 0.005
"""The part of the ranked rows at either end that the histogram may count beside its bins, so that a few far scores do
not press all others into one bin."""
TABLE_ROWS = 10_000
"""Rows of the core-set that the page's table has."""

Counts = NDArray[np.int64]


@dataclass
class Histogram:
    """Scores counted in bins: `edges` [B + 1], and counts [B + 2], of which the ends are below and above the edges."""

    edges: Floats
    ranked: Counts = field(default_factory=lambda: np.zeros(BINS + 2, dtype=np.int64))
    selected: Counts = field(default_factory=lambda: np.zeros(BINS + 2, dtype=np.int64))

    @classmethod
    def between(cls, low: float, high: float) -> "Histogram":
        """Lay out bins of equal width."""
        return cls(np.linspace(low, high, BINS + 1) if low < high else low + np.linspace(-0.5, 0.5, BINS + 1))

    def add(self, table: pa.Table) -> None:
        """Count ranked rows; a score on an edge belongs to the bin above, on the last edge to the last bin."""
        scores, selected = table["score"].to_numpy(), np.asarray(table["selected"])
        place = np.searchsorted(self.edges, scores, side="right")
        place[scores == self.edges[-1]] = BINS
        self.ranked += np.bincount(place, minlength=BINS + 2)
        self.selected += np.bincount(place[selected], minlength=BINS + 2)


@dataclass
class Figures:
    """What one pass over a scored table found.

    lengths, chosen_lengths: how many ranked, and chosen, rows have each number of response tokens. sample: NUMBERS of
    ranked rows. chosen: NUMBERS and PLACES of rows of the core-set.
    """

    histogram: Histogram
    sources: Shares = field(default_factory=lambda: Shares("source"))
    groups: Shares = field(default_factory=lambda: Shares("group"))
    lengths: Counts = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    chosen_lengths: Counts = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    sample: LowestIds = field(default_factory=lambda: LowestIds(SAMPLE_ROWS))
    chosen: LowestIds = field(default_factory=lambda: LowestIds(TABLE_ROWS))


def figures_of(parts: Sequence[str], ranked: int, near_cut: Sequence[float] = ()) -> Figures:
    """Read a scored table, of which so many rows are ranked. parts: its files.

    near_cut: scores on both sides of the cut, which the bins must reach: few chosen rows may all lie in TAIL.
    """
    inside = [*score_bounds(parts, ranked), *near_cut]
    found = Figures(Histogram.between(min(inside), max(inside)))
    for table in scan(parts, sorted({*COUNTS, *NUMBERS, *PLACES})):
        _add(found, table)
    return found


def told_rows(parts: Sequence[str], asked: Collection[int]) -> dict[int, dict[str, Any]]:
    """Return rank -> the whole row of a scored table, for the ranks that are asked for."""
    told: dict[int, dict[str, Any]] = {}
    ranks = pa.array(sorted(asked), pa.int64())
    for uri, table in zip(parts, scan(parts, ("rank",)), strict=True):
        here = np.flatnonzero(np.asarray(pc.is_in(table["rank"], ranks)))
        rows = storage.read_rows(uri, here.tolist()).to_pylist() if len(here) else []
        told |= {row["rank"]: row | {"example_id": row["example_id"].hex()} for row in rows}
    return told


def _add(found: Figures, table: pa.Table) -> None:
    ranked = table.filter(pc.is_valid(table["rank"]))
    chosen = ranked.filter(ranked["selected"])
    found.sources.add(table)
    found.groups.add(table)
    found.histogram.add(ranked)
    found.lengths = more_lengths(found.lengths, ranked)
    found.chosen_lengths = more_lengths(found.chosen_lengths, chosen)
    found.sample.add(ranked.select(NUMBERS))
    found.chosen.add(with_file_names(chosen.select([*NUMBERS, *PLACES])))


def with_file_names(table: pa.Table) -> pa.Table:
    """Write out the names of files: parts have dictionaries of their own."""
    at = table.column_names.index("file")
    return table.set_column(at, "file", table["file"].cast(pa.string()))


def more_lengths(lengths: Counts, table: pa.Table) -> Counts:
    """Add the rows of a table to how many rows have each number of response tokens."""
    counted = np.bincount(tokens_in(table), minlength=len(lengths))
    counted[: len(lengths)] += lengths
    return counted


def score_bounds(parts: Sequence[str], ranked: int) -> tuple[float, float]:
    """Return the scores that leave out TAIL of the ranked rows at either end."""
    tail = int(ranked * TAIL)
    wanted = pa.array([1 + tail, ranked - tail], pa.int64())
    found: list[float] = []
    for table in scan(parts, ("rank", "score")):
        found += table.filter(pc.is_in(table["rank"], wanted))["score"].to_pylist()
    return (min(found), max(found)) if found else (0.0, 0.0)


def scan(parts: Sequence[str], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Read some columns of a scored table, a part at a time."""
    return (storage.read_table(uri, list(columns)) for uri in parts)
