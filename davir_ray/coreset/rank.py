"""The order of all rows: by score, then by example id, so files, blocks, actors and retries never show.

A row's place is one 24-byte key that sorts like the pair. Rows are dealt into ranges of keys, each range is sorted by
itself, and the ranks of a range begin where the ranges before it end: exact, and nothing ever sorts the corpus.
"""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.schema import SCORABLE, Status
from davir_ray.store.keys import Keys, keys_of

Order = Literal["highest", "lowest"]

SAMPLE_PER_RANGE = 4096
SIGN = np.uint64(1 << 63)


def rank_keys(score: NDArray[np.float64], ids: Keys, order: Order) -> NDArray[np.bytes_]:
    """Return `S24` [N]: sorting them puts the best score first, equal scores by id, rows without a score last."""
    bits = (score + 0.0).view(np.uint64)  # adding zero makes -0.0 equal to 0.0
    ascending = np.where(bits & SIGN, ~bits, bits | SIGN)
    wanted = ascending if order == "lowest" else ~ascending
    wanted = np.where(np.isnan(score), np.uint64(2**64 - 1), wanted)
    keys = np.empty((len(score), 24), dtype=np.uint8)
    keys[:, :8] = wanted.astype(">u8").view(np.uint8).reshape(-1, 8)
    keys[:, 8:] = np.ascontiguousarray(ids).view(np.uint8).reshape(-1, 16)
    return keys.view("S24").reshape(-1)


def sample_keys(keys: NDArray[np.bytes_], ids: Keys, share: float) -> NDArray[np.bytes_]:
    """Draw about this share of the keys by their ids, so that the draw depends on nothing but the rows."""
    head = np.ascontiguousarray(ids).view(">u4").reshape(-1, 4)[:, 1]
    return keys[head.astype(np.float64) < share * 2.0**32]


def choose_bounds(sample: NDArray[np.bytes_], ranges: int) -> NDArray[np.bytes_]:
    """Choose the keys at which ranges 1, 2, ... begin, so that all ranges hold about equally many rows."""
    if len(sample) == 0:
        return np.full(ranges - 1, b"\xff" * 24, dtype="S24")
    return np.sort(sample)[[len(sample) * index // ranges for index in range(1, ranges)]]


def settle(table: pa.Table, keys: NDArray[np.bytes_]) -> pa.Table:
    """Sort a range, and let the first row of each content stand for its repeats.

    `table` has the columns of ray_rank.ROWS. Equal keys of scored rows are equal content: the rows after the
    first become duplicates. `locations` of the first then lists every row that could be exported for it.
    """
    order = np.argsort(keys, kind="stable")
    table, keys = table.take(pa.array(order)), keys[order]
    starts = (
        np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))) if len(keys) else np.array([], int)
    )
    if len(starts) == len(keys):
        return table
    return _mark_repeats(table, starts)


def _mark_repeats(table: pa.Table, starts: NDArray[np.integer[Any]]) -> pa.Table:
    sizes = np.diff(np.append(starts, len(table)))
    repeated = np.flatnonzero(np.repeat(sizes > 1, sizes))
    rows = table.take(pa.array(repeated)).to_pylist()
    settled: list[dict[str, Any]] = []
    for size in sizes[sizes > 1].tolist():
        settled += _settle_run(rows[len(settled) : len(settled) + size])
    both = pa.concat_tables([table, pa.Table.from_pylist(settled, schema=table.schema)])
    index = np.arange(len(table))
    index[repeated] = len(table) + np.arange(len(repeated))
    return both.take(pa.array(index)).combine_chunks()


def _settle_run(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = sorted(rows, key=lambda row: (row["source"], row["group"], row["status"], row["reason"] or ""))
    first = rows[0]
    if first["score"] is None or first["status"] not in SCORABLE:
        return rows
    alike = [row for row in rows if (row["source"], row["group"]) == (first["source"], first["group"])]
    locations = sorted(
        (place for row in alike for place in row["locations"]), key=lambda p: (p["split"], p["row"])
    )
    repeat: dict[str, Any] = {
        "status": str(Status.DUPLICATE),
        "reason": f"the same content as another row (example {first['example_id'].hex()})",
        "score": None,
    }
    return [first | {"locations": locations}, *(row | repeat for row in rows[1:])]


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
