"""The sequences of a chunk come out of its one row as they went in."""

import numpy as np
import pyarrow as pa

from davir_ray.measure.chunk_rows import CHUNK, CHUNK_ROWS, chunk_of, sequences_of

ROWS = pa.Table.from_pylist(
    [
        {"sequence_id": bytes([n]) * 16, "ids": list(range(n, 2 * n)), "scored": [t > 1 for t in range(n)]}
        for n in range(2, 9)
    ],
    CHUNK_ROWS,
)


def test_what_goes_in_comes_out_in_order():
    some = pa.concat_tables([ROWS.slice(4), ROWS.slice(1, 2)])  # parts of larger buffers, in pieces
    chunk = chunk_of(1, "a", some)
    assert chunk.schema == CHUNK
    assert (chunk["pass"].to_pylist(), chunk["name"].to_pylist()) == ([1], ["a"])
    found = [
        {"sequence_id": key, "ids": one.ids.tolist(), "scored": one.scored.tolist()}
        for key, one in sequences_of(chunk)
    ]
    assert found == some.to_pylist()
    assert {(one.ids.dtype, one.scored.dtype) for _, one in sequences_of(chunk)} == {
        (np.dtype("int32"), np.dtype("bool"))
    }


def test_a_chunk_that_could_not_be_read_has_no_sequences_and_says_why():
    chunk = chunk_of(0, "", CHUNK_ROWS.empty_table(), "StoreError: gone")
    assert sequences_of(chunk) == []
    assert chunk["error"].to_pylist() == ["StoreError: gone"]
