"""Which rows the core-set takes: selection rules over the ranked rows, a part at a time.

Rules run in order, each on the rows that the ones before it kept. A row that is left out names the one
rule that did it. `keep_sources` is no cut: wherever it stands, the rows of its sources are selected, no
rule sees them, and no fraction, quota or budget counts them. So a core-set of one corpus can be mixed
with all of another.

What is held is the choice itself, compressed (a few bits a row at most), and what a rule counts: groups, lengths,
digits. Only near_duplicates holds more. Columns are scanned again for each rule, and only those that it reads.
"""

import zlib
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

Codes = NDArray[np.int16]
SELECTED, PINNED = -1, -2
"""The codes of rows that no rule left out so far, and of those that no rule sees; others are indices of rules."""


@dataclass(frozen=True)
class Choice:
    """What became of the N rows of one part, compressed."""

    packed: bytes

    @classmethod
    def of(cls, codes: Codes) -> "Choice":
        """Compress what became of each row [N]."""
        return cls(zlib.compress(codes.tobytes(), level=1))

    @property
    def codes(self) -> Codes:
        """What became of each row [N]."""
        return np.frombuffer(zlib.decompress(self.packed), dtype=np.int16)

    @property
    def reaching(self) -> Mask:
        """Which rows a further rule sees [N]."""
        reaching: Mask = self.codes == SELECTED
        return reaching

    @property
    def selected(self) -> Mask:
        """Which rows the core-set takes [N]."""
        return self.codes < 0

    @property
    def dropped_by(self) -> Codes:
        """The index of the rule that left each row out, -1 where it is selected [N]."""
        return np.maximum(self.codes, -1)

    def count(self) -> int:
        """Count the rows that the core-set takes."""
        return int(np.count_nonzero(self.selected))

    def after(self, rule: int, keep: Mask) -> "Choice":
        """Leave out the rows that reach a rule, and that it does not keep."""
        codes = self.codes.copy()
        codes[np.flatnonzero(codes == SELECTED)[~keep]] = rule
        return Choice.of(codes)


def choose(rules: Sequence[SelectRule], scan: Scan) -> list[Choice]:
    """Apply the rules to ranked rows; one choice a part. Without rules every row is selected.

    Columns that may be read: example_id, source, group, num_tokens, base_loss, score, rank, signature.
    """
    choices = [
        Choice.of(np.where(pinned, PINNED, SELECTED).astype(np.int16)) for pinned in _pinned(rules, scan)
    ]
    for index, rule in enumerate(rules):
        if rule.type != "keep_sources":
            kept = KEEP[rule.type](rule, _rows_reaching(scan, choices))
            choices = [choice.after(index, keep) for choice, keep in zip(choices, kept, strict=True)]
    return choices


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


def _pinned(rules: Sequence[SelectRule], scan: Scan) -> Iterator[Mask]:
    """Mark the rows that `keep_sources` selects."""
    sources = [name for rule in rules if isinstance(rule, KeepSourcesRule) for name in rule.sources]
    names = pa.array(sources, pa.string())
    for table in scan(["source"]):
        yield np.asarray(pc.is_in(table["source"], value_set=names))


def _rows_reaching(scan: Scan, choices: Sequence[Choice]) -> Rows:
    def rows(*columns: str) -> Iterator[pa.Table]:
        for table, choice in zip(scan(columns), choices, strict=True):
            yield table.filter(pa.array(choice.reaching))

    return rows
