"""Spearman's rank correlation of two nights, over the rows that both ranked.

    rho = 1 - 6 sum(d^2) / (n (n^2 - 1)),   d the difference of a row's places among those n rows

Ranks have no ties. Rows that only one night ranked leave gaps in the ranks, so the places are counted again: rows go to
ranges of the one night's ranks, are numbered there, and go to ranges of the other's.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from davir_ray.cluster.ray_exchange import Pieces, gather, scatter
from davir_ray.ids import split_table

RANKS = pa.schema([("before", pa.int64()), ("after", pa.int64())])


def deal(table: pa.Table, by: str, rows: int, ranges: int) -> list[pa.Table]:
    """Cut a RANKS table by the ranges of one night's ranks, which are 1 to `rows`."""
    return split_table(table, (table[by].to_numpy() - 1) * ranges // max(rows, 1), ranges)


def rank_correlation(pieces: Sequence[Pieces], rows_after: int, ranges: int) -> tuple[float | None, int]:
    """Return the correlation and the number of rows; None for fewer than two. pieces: by ranges of `before`."""
    tables, starts, count = _sorted(pieces, "before")
    numbered = [
        scatter(renumber, ranges, table, start, rows_after, ranges)
        for table, start in zip(tables, starts, strict=True)
    ]
    tables, starts, _ = _sorted(numbered, "after")
    squares = ray.remote(sum_of_squares)
    total = sum(ray.get([squares.remote(table, start) for table, start in zip(tables, starts, strict=True)]))
    return (1 - 6 * total / (count * (count**2 - 1)) if count > 1 else None), count


def _sorted(pieces: Sequence[Pieces], by: str) -> tuple[list[Any], list[int], int]:
    """Sort each range; return the ranges, how many rows are before each, and how many there are."""
    tables = gather(pieces, in_order, by)
    count = ray.remote(count_rows)
    sizes = ray.get([count.remote(table) for table in tables])
    return tables, [0, *accumulate(sizes)][:-1], sum(sizes)


def count_rows(table: pa.Table) -> int:
    """Count the rows of a range."""
    return len(table)


def in_order(by: str, *pieces: pa.Table) -> pa.Table:
    """Put the pieces of one range together, in order of one night's ranks."""
    return pa.concat_tables(pieces).sort_by(by).combine_chunks()


def renumber(table: pa.Table, start: int, rows_after: int, ranges: int) -> list[pa.Table]:
    """Replace the ranks of the night before by places, and deal the rows by those of the night after."""
    places = pa.array(places_from(start, len(table)))
    return deal(pa.table([places, table["after"]], schema=RANKS), "after", rows_after, ranges)


def sum_of_squares(table: pa.Table, start: int) -> float:
    """Sum the squared differences of places. Float64: the sum outgrows int64, and is good to 15 digits."""
    return float(
        np.square(places_from(start, len(table)) - table["before"].to_numpy(), dtype=np.float64).sum()
    )


def places_from(start: int, count: int) -> NDArray[np.int64]:
    """Number rows from `start` + 1 on."""
    return np.arange(start + 1, start + 1 + count, dtype=np.int64)
