"""Cut missing sequences into chunks: what one call of an engine measures, and one part of the store holds.

Sequences of like length share a chunk, longest first, so an engine wastes little on padding and meets its largest
batch at once. The plan of a run is written down before anything is measured: a resumed run measures the same
chunks, hence the same batches, hence the same numbers to the last bit.
"""

from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.ids import keys_of
from davir_ray.store.measurements import part_name

CHUNK_TOKENS = {"cpu": 16_384, "cuda": 262_144}
"""Tokens of a chunk, which is what a stop may lose: half a minute of a 135M model on two cores, or about ten
seconds of an 8B model on an H100."""

CHUNKS = pa.schema(
    [
        ("name", pa.string()),  # of the store part that the chunk becomes
        ("positions", pa.list_(pa.int32())),  # indices into the TOKENS part of the split
        ("tokens", pa.int64()),
    ]
)


def plan_chunks(sequences: pa.Table, budget: int) -> pa.Table:
    """Cut sequences (`position`, `sequence_id`, `length`) into chunks of about `budget` tokens each."""
    length = sequences["length"].to_numpy()
    keys = keys_of(sequences["sequence_id"])
    order = np.lexsort((keys, -length))
    chunk = chunk_numbers(length[order], budget)
    bounds = [*np.flatnonzero(np.diff(chunk, prepend=-1)), len(order)]
    rows = [order[start:stop] for start, stop in pairwise(bounds)]
    positions = sequences["position"].to_numpy()
    columns = [
        [part_name(keys[index]) for index in rows],
        [positions[index] for index in rows],
        [int(length[index].sum()) for index in rows],
    ]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, CHUNKS, strict=True)], schema=CHUNKS
    )


def chunk_numbers(length: NDArray[np.integer], budget: int) -> NDArray[np.int64]:
    """Number the chunk of each sequence, in order: a chunk ends with the sequence that fills its budget."""
    before = np.cumsum(length, dtype=np.int64) - length
    return before // budget
