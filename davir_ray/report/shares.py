"""How many rows and tokens each source or group has before and after choosing."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MOST_NAMES = 10_000
"""Of more groups than this none are counted: what is held must not grow with the rows."""
COUNTED = ("rows", "ranked", "ranked_tokens", "selected", "tokens")


@dataclass(frozen=True)
class Share:
    """One source or group. rows: all; the others: ranked and chosen ones, and their response tokens."""

    name: str
    rows: int
    ranked: int
    ranked_tokens: int
    selected: int
    tokens: int


@dataclass
class Shares:
    """Counts by the values of one column; `too_many` once there are more than MOST_NAMES."""

    column: str
    too_many: bool = False
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def add(self, table: pa.Table) -> None:
        """Count the rows of a part of the scored table."""
        if self.too_many:
            return
        sums = counted(table, self.column)
        for name, *values in zip(*(one.to_pylist() for one in sums.columns), strict=True):
            self.counts[name] = self.counts.get(name, 0) + np.array(values, dtype=np.int64)
        if len(self.counts) > MOST_NAMES:
            self.too_many, self.counts = True, {}

    def largest(self, most: int) -> tuple[list[Share], int]:
        """Return the names with the most rows, and how many others there are."""
        ordered = sorted(self.counts.items(), key=lambda item: (-int(item[1][0]), item[0]))
        shares = [Share(name, *map(int, values)) for name, values in ordered[:most]]
        return shares, len(ordered) - len(shares)


def counted(table: pa.Table, column: str) -> pa.Table:
    """Sum up a part of the scored table by a column: its name, then COUNTED."""
    ranked, selected = pc.is_valid(table["rank"]), table["selected"]
    tokens = pc.fill_null(table["num_tokens"], 0).cast(pa.int64())
    numbers = [
        pa.chunked_array([pa.array(np.ones(len(table), dtype=np.int64))]),
        ranked.cast(pa.int64()),
        pc.if_else(ranked, tokens, 0),
        selected.cast(pa.int64()),
        pc.if_else(selected, tokens, 0),
    ]
    both = pa.table([table[column], *numbers], names=["name", *COUNTED])
    sums = both.group_by("name", use_threads=False).aggregate([(name, "sum") for name in COUNTED])
    return sums.select(["name", *(f"{name}_sum" for name in COUNTED)])
