"""What a corpus holds and nobody reads: columns and turn keys with values, counted, so that it can be told once.

Columns of JSON rows are counted row by row. Of Parquet only the footer is asked, so that columns that are not used
are not read: it knows how many values a flat column has, and of a nested one whether it has any.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import pyarrow.parquet as pq

from davir_ray.corpus import parquet_files
from davir_ray.corpus.split import Split

NAMED = 20
"""The most columns that one line names."""

Count = int | None
"""How many rows have a value; None where there are some, and the footer does not tell how many."""


@dataclass
class NotRead:
    """rows: how many were looked at. columns: how many of them have a value there, by name."""

    rows: int = 0
    columns: dict[str, Count] = field(default_factory=dict)

    def add_row(self, names: Iterable[str]) -> None:
        """Take in one row, and what of it is not read."""
        self.rows += 1
        self._add(dict.fromkeys(names, 1))

    def add_columns(self, counts: Mapping[str, Count]) -> None:
        """Take in what a footer says of columns."""
        self._add(counts)

    def add(self, other: "NotRead") -> None:
        """Take in the counts of other rows."""
        self.rows += other.rows
        self._add(other.columns)

    def _add(self, counts: Mapping[str, Count]) -> None:
        for name, count in counts.items():
            before = self.columns.get(name, 0)
            self.columns[name] = None if before is None or count is None else before + count

    def shown(self, obeyed: Iterable[str] = ()) -> str:
        """Return `meta (all 1,030 rows), notes (12 rows)`; empty where everything is read.

        obeyed: the columns of the format; one that differs from such a column in its capitals alone is asked about.
        """
        alike = {name.casefold(): name for name in obeyed}
        names = sorted(self.columns, key=lambda name: (-(self.columns[name] or 0), name))
        shown = [
            f"{name} ({self._amount(name)}{_question(name, alike.get(name.casefold()))})"
            for name in names[:NAMED]
        ]
        more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
        return ", ".join(shown + more)

    def _amount(self, name: str) -> str:
        count = self.columns[name]
        if count is None:
            return "some rows"
        return f"all {count:,} rows" if count == self.rows > 1 else f"{count:,} row{'s' * (count != 1)}"


def _question(name: str, column: str | None) -> str:
    return "" if column is None else f"; is it `{column}`? then corpus.columns: {{{column}: {name}}}"


def parquet_not_read(split: Split, read: Collection[str]) -> dict[str, Count]:
    """Count the values of the columns of a Parquet split that are not in `read`, from the footer alone.

    A row group that several splits share is counted where that is exact, and otherwise as some. Empty for other files.
    """
    if split.kind != "parquet":
        return {}
    with parquet_files.opened(split.path) as file:
        groups = list(_groups(file.metadata, split))
        leaves = {name: some for name, some in _leaves(file).items() if name not in read}
    counted = {
        name: [_in_group(group, some, rows) for group, rows in groups] for name, some in leaves.items()
    }
    totals = {name: None if None in some else sum(filter(None, some)) for name, some in counted.items()}
    return {name: total for name, total in totals.items() if total != 0}


def _leaves(file: pq.ParquetFile) -> dict[str, list[int]]:
    """Return the indices of the Parquet columns that make up each column of the rows, without those of type null."""
    leaves: dict[str, list[int]] = {}
    names = file.schema_arrow.names
    for index in range(file.metadata.num_columns):
        leaf = file.metadata.schema.column(index)
        if str(leaf.logical_type) != "Null":
            at = leaf.path
            name = at if at in names else next(name for name in names if at.startswith(f"{name}."))
            leaves.setdefault(name, []).append(index)
    return leaves


def _groups(metadata: pq.FileMetaData, split: Split) -> Iterator[tuple[Any, int]]:
    """Yield the row groups of a split, each with how many of its rows are the split's."""
    sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    starts = [0, *accumulate(sizes)]
    end = split.first_row + (split.num_rows or 0)
    for index in split.row_groups or ():
        overlap = min(end, starts[index + 1]) - max(split.first_row, starts[index])
        if overlap > 0:
            yield metadata.row_group(index), overlap


def _in_group(group: Any, leaves: list[int], rows: int) -> Count:
    """Count the values that a column has in `rows` rows of a row group."""
    values = [_values(group.column(index)) for index in leaves]
    if not any(one is None or one for one in values):
        return 0
    is_flat = len(leaves) == 1 and group.column(leaves[0]).num_values == group.num_rows
    if not is_flat or values[0] is None:
        return None
    if values[0] == group.num_rows:
        return rows
    return values[0] if rows == group.num_rows else None


def _values(chunk: Any) -> Count:
    """Count the values of a Parquet column in a row group; None where its statistics do not tell."""
    if not chunk.is_stats_set or not chunk.statistics.has_null_count:
        return None
    return int(chunk.num_values - chunk.statistics.null_count)
