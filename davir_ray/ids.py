"""16-byte ids as NumPy keys: comparing, sorting and partitioning them, and hashing numbers.

NumPy's `S16` compares like `memcmp`. It hides trailing zero bytes, which is harmless between keys of one width.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.schema import ID

Keys = NDArray[np.bytes_]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio: multiples of it are spread evenly over 64 bits."""


def keys_of(column: pa.ChunkedArray | pa.Array) -> Keys:
    """View a column of 16-byte ids as `S16` [N]."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    start = column.offset * 16
    return np.frombuffer(column.buffers()[1], dtype="S16", count=len(column), offset=start)


def column_of(keys: Keys) -> pa.Array:
    """Turn `S16` [N] back into a column of 16-byte ids."""
    data = np.ascontiguousarray(keys).tobytes()
    return pa.FixedSizeBinaryArray.from_buffers(ID, len(keys), [None, pa.py_buffer(data)])


def partition_of(keys: Keys, partitions: int) -> NDArray[np.int64]:
    """Tell the partition of each key, by its first 32 bits: ids are hashes, so partitions are even."""
    words = np.ascontiguousarray(keys).view(">u4").reshape(-1, 4)[:, 0]
    return (words.astype(np.uint64) * np.uint64(partitions) >> np.uint64(32)).astype(np.int64)


def split_table(table: pa.Table, partition: NDArray[np.int64], partitions: int) -> list[pa.Table]:
    """Cut a table into one table a partition; the order of rows within each stays."""
    order = np.argsort(partition, kind="stable")
    bounds = np.searchsorted(partition[order], np.arange(partitions + 1))
    table = table.take(pa.array(order))
    return [table.slice(a, b - a) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def split_block(table: pa.Table, block: range) -> list[pa.Table]:
    """Cut a table of a block of splits, by its column `split`, into one table a split."""
    return split_table(table, table["split"].to_numpy() - block.start, len(block))


def mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter 64-bit words: the finaliser of splitmix64 (Steele et al., 2014), which wraps around by design.

    Each bit of a word changes about half of the bits of what comes of it.
    """
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def uniform_draw(keys: Keys, seed: int) -> NDArray[np.float64]:
    """Return a number for each key, uniform in [0, 1) in steps of 2**-53, that follows from it and the seed [N]."""
    halves = np.ascontiguousarray(keys, dtype="S16").view("<u8").reshape(-1, 2)
    state = mixed(np.array([seed % 2**64], dtype=np.uint64) + GOLDEN)
    for half in (halves[:, 0], halves[:, 1]):
        state = mixed((state ^ half) + GOLDEN)  # a step of splitmix64
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def find(keys: NDArray[Any], within: NDArray[Any]) -> NDArray[np.int64]:
    """Tell where each key stands in `within`, which is sorted; -1 where it does not."""
    if len(within) == 0:
        return np.full(len(keys), -1, dtype=np.int64)
    index = np.minimum(np.searchsorted(within, keys), len(within) - 1)
    return np.where(within[index] == keys, index, -1)
