"""What the table at the end of a run shows: where rows went, what was chosen, how score and length relate.

Two scans of the scored table, a part at a time. What is held does not grow with the rows.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from davir_ray.coreset.cuts import tokens_in
from davir_ray.coreset.rank_correlation import RankCorrelation
from davir_ray.coreset.rules import Scan

ROW = ("example_id", "file", "row", "score", "num_tokens", "rank", "selected")


@dataclass(frozen=True)
class SourceShare:
    """One source, before and after. Shares are of all rows, and of all selected rows."""

    rows: int
    selected: int
    tokens: int
    share_before: float
    share_after: float


@dataclass(frozen=True)
class Row:
    """One row of the ranking. The id is in hex; file and row (from 0) are its place in the corpus."""

    example_id: str
    file: str
    row: int
    score: float
    num_tokens: int
    rank: int
    selected: bool


@dataclass(frozen=True)
class Summary:
    """Figures of a run. `as_dict` is plain JSON data."""

    rows: int
    ranked: int
    selected: int
    tokens: int
    """Response tokens of the selected rows."""
    status: dict[str, int]
    """Rows by status; they add up to `rows`."""
    dropped_by: dict[str, int]
    """Ranked rows that a selection rule left out, by rule; with `selected` they add up to `ranked`."""
    sources: dict[str, SourceShare]
    length_correlation: float | None
    """Spearman's, of score and response tokens over all ranked rows; None where one of them is constant."""
    best: list[Row]
    borderline: list[Row]
    """Around the rank at which a plain cut of the same size would fall."""
    worst: list[Row]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return asdict(self)


def summarise(scan: Scan, shown: int = 3) -> Summary:
    """Sum up the scored table, which `scan` reads in rank order with the columns of `schema.SCORED`.

    Rows without a rank may stand anywhere. `shown` is how many best, worst and borderline rows to keep.
    """
    totals = count_rows(scan)
    correlation = RankCorrelation(totals.lengths)
    windows = [_Window(0, shown), _around(totals, shown), _Window(totals.ranked - shown, totals.ranked)]
    for table in _ranked(scan, ROW):
        correlation.add(np.asarray(table["score"].to_numpy(), dtype=np.float64), tokens_in(table))
        for window in windows:
            window.add(table)
    return Summary(
        rows=sum(totals.status.values()),
        ranked=totals.ranked,
        selected=sum(totals.selected.values()),
        tokens=sum(totals.tokens.values()),
        status=dict(sorted(totals.status.items())),
        dropped_by=dict(sorted(totals.dropped_by.items())),
        sources=_shares(totals),
        length_correlation=correlation.finish(),
        best=windows[0].rows,
        borderline=windows[1].rows,
        worst=windows[2].rows,
    )


@dataclass
class Totals:
    """Counts over the whole table: by status, by rule, by source, and by length of the ranked rows."""

    status: Counter[str] = field(default_factory=Counter)
    dropped_by: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    selected: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def ranked(self) -> int:
        """Rows that have a rank."""
        return int(self.lengths.sum())


def count_rows(scan: Scan) -> Totals:
    """Count in one scan what needs no order."""
    totals = Totals()
    for table in scan(["status", "source", "num_tokens", "rank", "selected", "dropped_by"]):
        totals.status.update(_counts(table["status"]))
        totals.dropped_by.update(_counts(table["dropped_by"].drop_null()))
        totals.sources.update(_counts(table["source"]))
        totals.lengths = _add_lengths(totals.lengths, table.filter(table["rank"].is_valid()))
        chosen = table.filter(table["selected"])
        totals.selected.update(_counts(chosen["source"]))
        totals.tokens.update(_tokens_by_source(chosen))
    return totals


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {one["values"]: one["counts"] for one in pc.value_counts(column).to_pylist()}


def _tokens_by_source(table: pa.Table) -> dict[str, int]:
    sums = table.group_by("source", use_threads=False).aggregate([("num_tokens", "sum")])
    return {one["source"]: one["num_tokens_sum"] or 0 for one in sums.to_pylist()}


def _add_lengths(lengths: NDArray[np.int64], table: pa.Table) -> NDArray[np.int64]:
    """Add the rows of a table to the number of rows of each length."""
    counted = np.bincount(tokens_in(table), minlength=len(lengths))
    counted[: len(lengths)] += lengths
    return counted


def _ranked(scan: Scan, columns: tuple[str, ...]) -> Iterator[pa.Table]:
    return (table.filter(table["rank"].is_valid()) for table in scan(columns))


def _shares(totals: Totals) -> dict[str, SourceShare]:
    before, after = sum(totals.sources.values()), sum(totals.selected.values())
    return {
        name: SourceShare(
            rows=rows,
            selected=totals.selected[name],
            tokens=totals.tokens[name],
            share_before=rows / before,
            share_after=totals.selected[name] / max(after, 1),
        )
        for name, rows in sorted(totals.sources.items())
    }


class _Window:
    """The rows whose ranks are above `above`, up to `upto`."""

    def __init__(self, above: int, upto: int) -> None:
        self.above, self.upto = above, upto
        self.rows: list[Row] = []

    def add(self, table: pa.Table) -> None:
        rank = table["rank"].to_numpy()
        inside = (rank > self.above) & (rank <= self.upto)
        if inside.any():
            rows = table.select(ROW).filter(pa.array(inside)).to_pylist()
            self.rows += [Row(**{**row, "example_id": row["example_id"].hex()}) for row in rows]


def _around(totals: Totals, shown: int) -> _Window:
    selected = sum(totals.selected.values())
    above = max(selected - (shown + 1) // 2, 0)
    return _Window(above, above + shown if selected else 0)
