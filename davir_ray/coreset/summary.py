"""What the table at the end of a run shows: where rows went, what was chosen, how score and length relate.

Two scans of the scored table, a part at a time, and one more for measurements of a narrow dtype. What is held grows
with the groups of a quota, not with the rows.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from davir_ray.coreset.borderline import Nearest, Spans, add_spans, cut_of, sides
from davir_ray.coreset.cut_noise import CutNoise, Rounding, count_near
from davir_ray.coreset.rank_correlation import RankSample
from davir_ray.coreset.rules.choose import Scan, rule_names
from davir_ray.coreset.rules.rule import Rule, tokens_in
from davir_ray.coreset.subtasks import SubtaskShare, SubtaskTotals
from davir_ray.ids import keys_of
from davir_ray.storage.typed import Written

ROW = ("example_id", "file", "row", "score", "num_tokens", "rank", "selected", "dropped_by")
GROUPS_KEPT = 10
"""Groups of a quota that are kept by name; the others are counted together."""


class SourceShare(Written):
    """One source of the corpus, before and after choosing."""

    rows: int
    """Rows of the source."""
    selected: int
    """Rows of the source that were chosen."""
    tokens: int
    """Response tokens of the chosen rows."""
    share_before: float
    """Part of all rows that are of this source, 0 to 1."""
    share_after: float
    """Part of the chosen rows that are of this source, 0 to 1."""


class RankedRow(Written):
    """One row of the ranking."""

    example_id: str
    """Hash of the content of the row, 16 bytes in hex."""
    file: str
    """File of the corpus that the row stands in."""
    row: int
    """Number of the row in its file, from 0."""
    score: float
    """Score of the row."""
    num_tokens: int
    """Response tokens of the row."""
    rank: int
    """Place of the row among all that have a score; 1 is the best."""
    selected: bool
    """Whether the row was chosen."""
    dropped_by: str | None
    """Rule that left the row out, named by its place and type, such as `0:fraction`; null if none did."""


class DroppedGroups(Written):
    """What a quota left out, by group or source: those that lost most, and the others together."""

    by: str
    """`group` or `source`."""
    groups: dict[str, int]
    """Group -> rows that the quota left out of it, for the groups that lost most."""
    other_groups: int
    """Further groups that lost rows."""
    other_rows: int
    """Rows that those lost."""

    @classmethod
    def of(cls, by: str, counted: Counter[str]) -> "DroppedGroups":
        """Keep the groups that lost most."""
        ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
        others = ordered[GROUPS_KEPT:]
        return cls(
            by=by,
            groups=dict(ordered[:GROUPS_KEPT]),
            other_groups=len(others),
            other_rows=sum(count for _, count in others),
        )


class Summary(Written):
    """Figures of the rows of a run."""

    rows: int
    """Rows of the corpus."""
    ranked: int
    """Rows that have a score, and so a rank."""
    selected: int
    """Rows that were chosen."""
    tokens: int
    """Response tokens of the chosen rows."""
    ranked_tokens: int
    """Response tokens of all ranked rows."""
    status: dict[str, int]
    """Status (`ok`, or what went wrong with a row) -> rows; they add up to `rows`."""
    dropped_by: dict[str, int]
    """Selection rule -> ranked rows that it left out; with `selected` they add up to `ranked`."""
    dropped_groups: dict[str, DroppedGroups]
    """The same by group, for each rule that says by what (`Rule.counted_by`)."""
    sources: dict[str, SourceShare]
    """Source of the corpus -> its share before and after."""
    length_correlation: float | None
    """Spearman's rank correlation of score and response tokens; null where one is constant."""
    length_correlation_rows: int
    """Ranked rows that the rank correlation is over: all, or of many a sample drawn by content."""
    best: tuple[RankedRow, ...]
    """Some of the rows with the highest scores."""
    borderline: tuple[RankedRow, ...]
    """Rows on both sides of the cut of the last rule that cut the ranking; without those among best and worst."""
    worst: tuple[RankedRow, ...]
    """Some of the rows with the lowest scores; without those among the best."""
    cut_noise: CutNoise | None = None
    """Rows that the rounding of the measurements could move across the cut of the last rule that left rows out by their
    rank; null in float32, for scores that are more than a formula of ours over losses of the response, and where that
    rule did not cut the whole ranking."""
    subtasks: dict[str, SubtaskShare] = Field(default_factory=dict)
    """Subtask of the target -> how the rows score for it; empty where the score knows none."""


def summarise(
    scan: Scan,
    rules: Sequence[Rule],
    shown: int = 3,
    rounding: Rounding | None = None,
    subtasks: Sequence[str] = (),
) -> Summary:
    """Sum up the scored table, which `scan` reads in rank order with the columns of `schema.SCORED`.

    Rows without a rank may stand anywhere. `rules` made the choice. `shown` is how many best and worst rows to keep.
    `rounding` is that of the measurements. `subtasks` are those for which the table holds scores.
    """
    totals = count_rows(scan, rules)
    correlation, by_subtask = RankSample(), SubtaskTotals(subtasks)
    best, worst = Nearest(_all, shown), Nearest(_all, shown, is_last=True)
    cut = list(sides(rules, totals.spans, (shown + 1) // 2))
    for table in _ranked(scan, (*ROW, "source", *by_subtask.columns)):
        by_subtask.add(table)
        correlation.add(keys_of(table["example_id"]), table["score"], table["num_tokens"])
        for wanted in (best, worst, *cut):
            wanted.add(table)
    ends = [*_rows([best]), *_rows([worst])]
    return Summary(
        rows=sum(totals.status.values()),
        ranked=totals.ranked,
        selected=sum(totals.selected.values()),
        tokens=sum(totals.tokens.values()),
        ranked_tokens=int(totals.lengths @ np.arange(len(totals.lengths))),
        status=dict(sorted(totals.status.items())),
        dropped_by=_by_rule(totals, rules),
        dropped_groups={
            name: DroppedGroups.of(by, totals.groups[name]) for name, by in _counted_by(rules).items()
        },
        sources=_shares(totals),
        length_correlation=correlation.correlation(),
        length_correlation_rows=len(correlation),
        best=_rows([best]),
        borderline=tuple(row for row in _rows(cut) if row not in ends),
        worst=tuple(row for row in _rows([worst]) if row not in _rows([best])),
        cut_noise=count_near(scan, cut_of(rules, totals.spans, cut), rules, rounding),
        subtasks=by_subtask.shares(),
    )


def _all(table: pa.Table) -> NDArray[np.bool_]:
    return np.ones(len(table), dtype=bool)


def _rows(found: Sequence[Nearest]) -> tuple[RankedRow, ...]:
    """Return what was found in the order of ranks, each row once."""
    by_rank = {row["rank"]: row for one in found for row in one.rows}
    return tuple(_row(by_rank[rank]) for rank in sorted(by_rank))


def _row(row: dict[str, Any]) -> RankedRow:
    return RankedRow(**{name: row[name] for name in ROW} | {"example_id": row["example_id"].hex()})


def _counted_by(rules: Sequence[Rule]) -> dict[str, str]:
    """Return rule -> the column by which what it left out is counted, of the rules that name one."""
    named = zip(rule_names(rules), rules, strict=True)
    return {name: rule.counted_by for name, rule in named if rule.counted_by is not None}


def _by_rule(totals: "Totals", rules: Sequence[Rule]) -> dict[str, int]:
    """Count for every rule that can leave rows out."""
    named = zip(rule_names(rules), rules, strict=True)
    return {name: totals.dropped_by[name] for name, rule in named if not rule.kept_sources}


@dataclass
class Totals:
    """Counts over the whole table: by status, by rule, by source, and by length of the ranked rows.

    groups: what each quota left out, by group. spans: see borderline.py.
    """

    status: Counter[str] = field(default_factory=Counter)
    dropped_by: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    selected: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    groups: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    spans: Spans = field(default_factory=dict)
    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @property
    def ranked(self) -> int:
        """Rows that have a rank."""
        return int(self.lengths.sum())


def count_rows(scan: Scan, rules: Sequence[Rule]) -> Totals:
    """Count in one scan what needs no order."""
    totals = Totals()
    for table in scan(["status", "source", "group", "num_tokens", "rank", "selected", "dropped_by"]):
        totals.status.update(_counts(table["status"]))
        totals.sources.update(_counts(table["source"]))
        ranked, chosen = table.filter(table["rank"].is_valid()), table.filter(table["selected"])
        totals.lengths = _add_lengths(totals.lengths, ranked)
        totals.selected.update(_counts(chosen["source"]))
        totals.tokens.update(_tokens_by_source(chosen))
        add_spans(totals.spans, ranked, rules)
        _add_dropped(totals, ranked, rules)
    return totals


def _add_dropped(totals: Totals, ranked: pa.Table, rules: Sequence[Rule]) -> None:
    """Count what each rule left out, and where it says so of which group."""
    totals.dropped_by.update(_counts(ranked["dropped_by"].drop_null()))
    for name, by in _counted_by(rules).items():
        dropped = ranked.filter(pc.fill_null(pc.equal(ranked["dropped_by"], name), False))
        totals.groups[name].update(_counts(dropped[by]))


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
