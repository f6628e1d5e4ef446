"""Ranges of rank keys, read back from files that hold the rows of some splits."""

import tempfile
from unittest import mock

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from davir_ray.coreset.rank import keys_in
from davir_ray.coreset.ray_rank import ROWS, ScoredRows
from davir_ray.ids import column_of

SCORES = st.one_of(st.none(), st.sampled_from([0.0, 0.5, -1.0]), st.floats(-2, 1))
LETTERS = st.sampled_from([letter * 16 for letter in (b"a", b"b", b"c")])


def table_of(rows) -> pa.Table:
    columns = {name: pa.nulls(len(rows), ROWS.field(name).type) for name in ROWS.names}
    columns["example_id"] = column_of(np.array([key for key, _ in rows], dtype="S16"))
    columns["score"] = pa.array([score for _, score in rows], pa.float64())
    return pa.table(columns, schema=ROWS)


@given(
    st.lists(st.tuples(LETTERS, SCORES), max_size=30),
    st.lists(st.tuples(LETTERS, SCORES), max_size=4),
    st.integers(1, 5),
)
def test_ranges_hold_every_row_once_in_order_wherever_row_groups_end(rows, edges, per_group):
    table = table_of(rows)
    keys = keys_in(table, "highest")
    bounds = np.sort(keys_in(table_of(edges), "highest"))
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch("davir_ray.coreset.ray_rank.ROWS_PER_GROUP", per_group),
    ):
        block = ScoredRows.write(f"{folder}/scored.parquet", table, keys)
        assert len(block.starts) == -(-len(rows) // per_group)
        parts = [block.within(bounds, index, "highest") for index in range(len(bounds) + 1)]
    for index, part in enumerate(parts):
        found = keys_in(part, "highest")
        assert index == 0 or (found >= bounds[index - 1]).all()
        assert index == len(bounds) or (found < bounds[index]).all()
    assert pa.concat_tables(parts).equals(table.take(pa.array(np.argsort(keys, kind="stable"))))
