"""A chunk on its way to an engine: one row of Arrow, so that it travels and is measured as a whole."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from davir_ray.logprobs.engine import TokenSequence
from davir_ray.schema import ID

CHUNK_ROWS = pa.schema([("sequence_id", ID), ("ids", pa.list_(pa.int32())), ("scored", pa.list_(pa.bool_()))])
"""The sequences of a chunk, one a row."""

CHUNK = pa.schema(
    [
        ("pass", pa.int32()),  # position among the passes that the engine measures
        ("name", pa.string()),
        *((field.name, pa.list_(field.type)) for field in CHUNK_ROWS),
        ("error", pa.string()),
    ]
)


def chunk_of(at: int, name: str, rows: pa.Table, error: str = "") -> pa.Table:
    """Make one row of the sequences of a chunk: its tokens are too many to become Python objects on the way.

    at: the pass. rows: CHUNK_ROWS.
    """
    columns = [column.combine_chunks() for column in rows.columns]
    lists = [pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), column) for column in columns]
    return pa.Table.from_arrays(
        [pa.array([at], pa.int32()), pa.array([name]), *lists, pa.array([error])], schema=CHUNK
    )


def sequences_of(chunk: pa.Table) -> list[tuple[bytes, TokenSequence]]:
    """Return the sequences of a CHUNK, each with its id."""
    columns = [chunk[name].combine_chunks().flatten() for name in CHUNK_ROWS.names]
    return sequences_in(pa.Table.from_arrays(columns, schema=CHUNK_ROWS))


def sequences_in(rows: pa.Table) -> list[tuple[bytes, TokenSequence]]:
    """Return the sequences of CHUNK_ROWS, each with its id."""
    keys, ids, scored = (rows[name].combine_chunks() for name in CHUNK_ROWS.names)
    sequences = (TokenSequence(*one) for one in zip(_pieces(ids), _pieces(scored), strict=True))
    return list(zip(keys.to_pylist(), sequences, strict=True))


def _pieces(lists: pa.ListArray) -> list[NDArray[Any]]:
    stops = np.cumsum(pc.list_value_length(lists).to_numpy())
    return np.split(np.array(lists.flatten()), stops)[:-1]
