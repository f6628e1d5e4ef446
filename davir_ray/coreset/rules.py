"""Which rows the core-set takes: selection rules over the ranked rows, a part at a time.

Rules run in order, each on the rows that the ones before it kept. A row that is left out names the one
rule that did it. `keep_sources` is no cut: wherever it stands, the rows of its sources are selected, no
rule sees them, and no fraction, quota or budget counts them. So a core-set of one corpus can be mixed
with all of another.

What is held is a few bytes a row (the choice itself), and what a rule counts: groups, lengths, digits. Only
near_duplicates holds more. Columns are scanned again for each rule, and only those that it reads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from davir_ray.config import KeepSourcesRule, NearDuplicatesRule, SelectRule
from davir_ray.coreset.cuts import Mask, Rows, count, fraction, threshold, token_budget
from davir_ray.coreset.difficulty import difficulty
from davir_ray.coreset.quotas import length_quota, quota

Scan = Callable[[Sequence[str]], Iterator[pa.Table]]
"""Reads columns of the ranked rows, in rank order, a table a part; each call gives the same parts."""


@dataclass(frozen=True)
class Choice:
    """What became of the N rows of one part.

    selected: bool [N]. dropped_by: index of the rule that left the row out, -1 where it is selected [N].
    """

    selected: Mask
    dropped_by: NDArray[np.int16]


def choose(rules: Sequence[SelectRule], scan: Scan) -> list[Choice]:
    """Apply the rules to ranked rows; one choice a part. Without rules every row is selected.

    Columns that may be read: example_id, source, group, num_tokens, base_loss, score, rank, signature.
    """
    pinned = _pinned(rules, scan)
    reaching = [~mask for mask in pinned]
    dropped_by = [np.full(len(mask), -1, dtype=np.int16) for mask in pinned]
    for index, rule in enumerate(rules):
        if rule.type == "keep_sources":
            continue
        kept = list(KEEP[rule.type](rule, _rows_reaching(scan, reaching)))
        for reached, keep, dropped in zip(reaching, kept, dropped_by, strict=True):
            left_out = np.flatnonzero(reached)[~keep]
            reached[left_out] = False
            dropped[left_out] = index
    return [Choice(dropped < 0, dropped) for dropped in dropped_by]


def _near_duplicates(rule: NearDuplicatesRule, rows: Rows) -> Iterator[Mask]:
    from davir_ray.coreset.near_duplicates import near_duplicates

    return near_duplicates(rule, rows)


KEEP: dict[str, Callable[[Any, Rows], Iterator[Mask]]] = {
    "fraction": fraction,
    "count": count,
    "token_budget": token_budget,
    "threshold": threshold,
    "quota": quota,
    "length_quota": length_quota,
    "difficulty": difficulty,
    "near_duplicates": _near_duplicates,
}


def _pinned(rules: Sequence[SelectRule], scan: Scan) -> list[Mask]:
    """Mark the rows that `keep_sources` selects."""
    sources = [name for rule in rules if isinstance(rule, KeepSourcesRule) for name in rule.sources]
    if not sources:
        return [np.zeros(len(table), dtype=bool) for table in scan(["rank"])]
    names = pa.array(sources, pa.string())
    return [np.asarray(pc.is_in(table["source"], value_set=names), dtype=bool) for table in scan(["source"])]


def _rows_reaching(scan: Scan, reaching: Sequence[Mask]) -> Rows:
    def rows(*columns: str) -> Iterator[pa.Table]:
        for table, mask in zip(scan(columns), reaching, strict=True):
            yield table.filter(pa.array(mask))

    return rows
