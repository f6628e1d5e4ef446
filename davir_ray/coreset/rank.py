"""The order of all rows: by score, then by example id, so files, blocks, actors and retries never show.

A row's place is one 24-byte key that sorts like the pair. Rows are dealt into ranges of keys, each range is sorted by
itself, and the ranks of a range begin where the ranges before it end: exact, and nothing ever sorts the corpus.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from davir_ray.corpus.split import place_text
from davir_ray.ids import Keys, keys_of
from davir_ray.schema import Status

Order = Literal["highest", "lowest"]

SAMPLE_PER_RANGE = 4096
SIGN = np.uint64(1 << 63)


def rank_keys(score: NDArray[np.float64], ids: Keys, order: Order) -> NDArray[np.bytes_]:
    """Return `S24` [N]: sorting them puts the best score first, equal scores by id, rows without a score last."""
    ascending = sortable(score)
    wanted = ascending if order == "lowest" else ~ascending
    wanted = np.where(np.isnan(score), np.uint64(2**64 - 1), wanted)
    keys = np.empty((len(score), 24), dtype=np.uint8)
    keys[:, :8] = wanted.astype(">u8").view(np.uint8).reshape(-1, 8)
    keys[:, 8:] = np.ascontiguousarray(ids).view(np.uint8).reshape(-1, 16)
    return keys.view("S24").reshape(-1)


def sortable(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Turn floats into integers that sort alike [N]."""
    bits = (values + 0.0).view(np.uint64)  # adding zero makes -0.0 equal to 0.0
    return np.where(bits & SIGN, ~bits, bits | SIGN)


def sample_keys(keys: NDArray[np.bytes_], ids: Keys, share: float) -> NDArray[np.bytes_]:
    """Draw about this share of the keys by their ids, so that the draw depends on nothing but the rows."""
    head = np.ascontiguousarray(ids).view(">u4").reshape(-1, 4)[:, 1]
    return keys[head.astype(np.float64) < share * 2.0**32]


def choose_bounds(sample: NDArray[np.bytes_], ranges: int) -> NDArray[np.bytes_]:
    """Choose the keys at which ranges 1, 2, ... begin, so that all ranges hold about equally many rows."""
    if len(sample) == 0:
        return np.full(ranges - 1, b"\xff" * 24, dtype="S24")
    return np.sort(sample)[[len(sample) * index // ranges for index in range(1, ranges)]]


def mark_repeats(table: pa.Table, keys: NDArray[np.bytes_], files: Sequence[str]) -> pa.Table:
    """Sort a range, and let the first row of each content, by its place in the corpus, stand for its repeats.

    `table` has the columns of ray_rank.ROWS; files: the file of each split. Equal keys of scored rows are equal
    content: the rows after the first become duplicates of it.
    """
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    begins = np.concatenate(([True], keys[1:] != keys[:-1]))[: len(keys)]
    table = table.take(pa.array(_by_place(order, begins, table))).combine_chunks()
    repeats = np.flatnonzero(~begins & ~np.isnan(score_in(table)))
    if len(repeats) == 0:
        return table
    first = np.maximum.accumulate(np.where(begins, np.arange(len(keys)), 0))[repeats]
    return _mark_repeats(table, repeats, _reasons(table.take(pa.array(first)), files))


def _by_place(order: NDArray[np.int64], begins: NDArray[np.bool_], table: pa.Table) -> NDArray[np.int64]:
    """Order the rows of each run of equal keys by their place. begins: where runs begin."""
    run = np.cumsum(begins)
    repeated = np.flatnonzero(np.bincount(run)[run] > 1)
    some = order[repeated]
    split, row = (table[name].to_numpy()[some] for name in ("split", "row"))
    order[repeated] = some[np.lexsort((row, split, run[repeated]))]
    return order


def _reasons(first: pa.Table, files: Sequence[str]) -> list[str]:
    places = zip(first["split"].to_pylist(), first["row"].to_pylist(), strict=True)
    return [f"the same content as {place_text(files[split], row)}" for split, row in places]


def _mark_repeats(table: pa.Table, repeats: NDArray[np.integer[Any]], reasons: list[str]) -> pa.Table:
    is_repeat = np.zeros(len(table), dtype=bool)
    is_repeat[repeats] = True
    values = {
        "status": pa.array([str(Status.DUPLICATE)] * len(repeats), pa.string()),
        "reason": pa.array(reasons, pa.string()),
        "score": pa.nulls(len(repeats), pa.float64()),
    }
    for name, value in values.items():
        column = pc.replace_with_mask(table[name].combine_chunks(), pa.array(is_repeat), value)
        table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
    return table


def keys_in(table: pa.Table, order: Order) -> NDArray[np.bytes_]:
    """Return the rank key of each row of a table."""
    return rank_keys(score_in(table), ids_in(table), order)


def ids_in(table: pa.Table) -> Keys:
    """View the example ids of a table as keys."""
    return keys_of(table["example_id"])


def score_in(table: pa.Table) -> NDArray[np.float64]:
    """View the scores of a table, NaN where a row has none."""
    return np.asarray(table["score"].to_numpy(zero_copy_only=False), dtype=np.float64)


def number(table: pa.Table, before: int, total: int) -> pa.Table:
    """Add `rank`, from `before` + 1 on, and `percentile` (100 is best) to the scored rows of a sorted range."""
    has_rank = ~np.isnan(score_in(table))
    rank = before + np.cumsum(has_rank)
    percentile = 100.0 * (total - rank + 1) / max(total, 1)
    table = table.append_column("rank", pa.array(rank, pa.int64(), mask=~has_rank))
    return table.append_column("percentile", pa.array(percentile, pa.float64(), mask=~has_rank))
