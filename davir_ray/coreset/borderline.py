"""Which rows of the ranking a run shows: its ends, and both sides of the cut.

The rule that decides is the last one that cuts by rank (`Rule.cuts`) and left rows out. The others do not look at the
rank, so nothing stands beside a cut of theirs.

    a cut of the ranking   the last rows that are selected, and the first behind them that the rule left out; where it
                           leaves out the top (threshold), the last of those and the first selected
    a cut of groups        the cut is another in each group or band: the last selected rows of all, and the best rows
                           that the rule left out, wherever they stand

Rows of kept sources are selected whatever their rank, and are no side of a cut.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from davir_ray.coreset.rules.choose import is_pinned, rule_names
from davir_ray.coreset.rules.rule import Mask, Rule

Spans = dict[str | None, tuple[int, int]]
"""The first and the last rank of the rows that each rule left out; under None, of those that are selected."""


def add_spans(spans: Spans, table: pa.Table, rules: Sequence[Rule]) -> None:
    """Widen the spans by ranked rows. Reads `source`, `rank` and `dropped_by`."""
    free = table.filter(pa.array(~is_pinned(table, rules)))
    found = free.group_by("dropped_by", use_threads=False).aggregate([("rank", "min"), ("rank", "max")])
    for one in found.to_pylist():
        first, last = spans.get(one["dropped_by"], (one["rank_min"], one["rank_max"]))
        spans[one["dropped_by"]] = min(first, one["rank_min"]), max(last, one["rank_max"])


@dataclass(frozen=True)
class Cut:
    """Where a rule, by its name, cut the whole ranking: at these scores."""

    rule: str
    scores: tuple[float, ...]


@dataclass
class Nearest:
    """The first rows of a scan that a mask takes, or the last, as plain data; at most `size` of them."""

    mask: Callable[[pa.Table], Mask]
    size: int
    is_last: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, table: pa.Table) -> None:
        """Look at the next part of the scan."""
        if not self.is_last and len(self.rows) == self.size:
            return
        index = np.flatnonzero(self.mask(table))
        index = index[-self.size :] if self.is_last else index[: self.size - len(self.rows)]
        self.rows = (self.rows + table.take(pa.array(index)).to_pylist())[-self.size :]


def deciding(rules: Sequence[Rule], spans: Spans) -> tuple[str, Rule] | None:
    """Return the last rule that cut by rank and left rows out, and its name; None if there is none."""
    named = zip(rule_names(rules), rules, strict=True)
    cuts = [(name, rule) for name, rule in named if rule.cuts is not None and name in spans]
    return cuts[-1] if cuts else None


def sides(rules: Sequence[Rule], spans: Spans, size: int) -> Iterator[Nearest]:
    """Yield what finds the rows on both sides of the cut, `size` on each; nothing where all or none are selected."""
    decided = deciding(rules, spans)
    if decided is None or None not in spans:
        return
    name, rule = decided
    selected, out = spans[None], spans[name]
    if rule.cuts == "groups":
        yield Nearest(_of(None, rules), size, is_last=True)
        yield Nearest(_of(name, rules), size)
        return
    if out[0] < selected[0]:
        yield Nearest(_of(name, rules, upto=selected[0]), size, is_last=True)
        yield Nearest(_of(None, rules), size)
    if out[1] > selected[1]:
        yield Nearest(_of(None, rules), size, is_last=True)
        yield Nearest(_of(name, rules, above=selected[1]), size)


def cut_of(rules: Sequence[Rule], spans: Spans, found: Sequence[Nearest]) -> Cut | None:
    """Return the cut of the rule that decides; None where that cuts groups, or nothing was cut. found: by `sides`.

    A rule that does not say at which scores it cuts has cut halfway between the rows on both sides.
    """
    decided = deciding(rules, spans)
    if decided is None or decided[1].cuts != "ranking":
        return None
    name, rule = decided
    pairs = zip(found[::2], found[1::2], strict=True)
    halfway = [
        (before.rows[-1]["score"] + behind.rows[0]["score"]) / 2
        for before, behind in pairs
        if before.rows and behind.rows
    ]
    scores = rule.cut_scores or tuple(halfway)
    return Cut(name, scores) if scores else None


def _of(
    name: str | None, rules: Sequence[Rule], above: float = 0, upto: float = math.inf
) -> Callable[[pa.Table], Mask]:
    """Mark what a rule left out, or what is selected, between two ranks."""

    def mask(table: pa.Table) -> Mask:
        rank = table["rank"].to_numpy()
        label = table["dropped_by"]
        is_it = np.asarray(label.is_null() if name is None else pc.fill_null(pc.equal(label, name), False))
        marked: Mask = is_it & (rank > above) & (rank <= upto) & ~is_pinned(table, rules)
        return marked

    return mask
