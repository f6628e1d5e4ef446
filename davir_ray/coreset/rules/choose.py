"""Which rows the core-set takes: selection rules over the ranked rows, a part at a time.

Rules run in order, each on the rows that the ones before it kept. A row that is left out names the one
rule that did it. Rows of sources that a rule names to be kept (`keep_sources`) are selected wherever it stands, no rule
sees them, and no fraction, quota or budget counts them. So a core-set of one corpus can be mixed with all of another.

What is held is the selection itself, compressed (a few bits a row at most), and what a rule counts: groups, lengths,
digits. Only near_duplicates holds more. Columns are scanned again for each rule, and only those that it reads.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from davir_ray.coreset.rules.rule import Mask, Rows, Rule, TokenColumn

Scan = Callable[[Sequence[str]], Iterator[pa.Table]]
"""Reads columns of the ranked rows, in rank order, a table a part; each call gives the same parts."""

Codes = NDArray[np.int16]
SELECTED, PINNED = -1, -2
"""The codes of rows that no rule left out so far, and of those that no rule sees; others are indices of rules."""


@dataclass(frozen=True)
class Selection:
    """What became of the N rows of one part, compressed."""

    packed: bytes

    @classmethod
    def of(cls, codes: Codes) -> "Selection":
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

    def after(self, rule: int, keep: Mask) -> "Selection":
        """Leave out the rows that reach a rule, and that it does not keep."""
        codes = self.codes.copy()
        codes[np.flatnonzero(codes == SELECTED)[~keep]] = rule
        return Selection.of(codes)


def choose(rules: Sequence[Rule], scan: Scan) -> list[Selection]:
    """Apply the rules to ranked rows; one selection a part. Without rules every row is selected."""
    pinned = (is_pinned(table, rules) for table in scan(["source"]))
    selections = [Selection.of(np.where(rows, PINNED, SELECTED).astype(np.int16)) for rows in pinned]
    for index, rule in enumerate(rules):
        kept = rule.keep(_rows_reaching(scan, selections))
        selections = [selection.after(index, keep) for selection, keep in zip(selections, kept, strict=True)]
    return selections


def rule_names(rules: Sequence[Rule]) -> list[str]:
    """Name the rules as the column `dropped_by` does: position and type."""
    return [f"{index}:{rule.type}" for index, rule in enumerate(rules)]


def is_pinned(table: pa.Table, rules: Sequence[Rule]) -> Mask:
    """Mark the rows of sources that are selected whatever the rules say [N]. Reads `source`."""
    sources = [name for rule in rules for name in rule.kept_sources]
    return np.asarray(pc.is_in(table["source"], value_set=pa.array(sources, pa.string())))


def token_columns(rules: Sequence[Rule]) -> tuple[TokenColumn, ...]:
    """Return the columns that are made for the rules, each name once."""
    made = [rule.token_column for rule in rules]
    return tuple({column.name: column for column in made if column is not None}.values())


def _rows_reaching(scan: Scan, selections: Sequence[Selection]) -> Rows:
    def rows(*columns: str) -> Iterator[pa.Table]:
        for table, selection in zip(scan(columns), selections, strict=True):
            yield table.filter(pa.array(selection.reaching))

    return rows
