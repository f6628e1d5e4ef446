import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from davir_ray.ids import column_of, find, keys_of, partition_of, split_table
from davir_ray.schema import ID

ids = st.lists(st.binary(min_size=16, max_size=16), max_size=40)


@given(ids)
def test_keys_survive_the_way_through_arrow(values):
    column = pa.array(values, ID)
    assert column_of(keys_of(column)).to_pylist() == values


@given(ids)
def test_a_sliced_column_gives_the_keys_of_the_slice(values):
    assert (
        keys_of(pa.array([b"x" * 16, *values], ID).slice(1)).tolist()
        == keys_of(pa.array(values, ID)).tolist()
    )


@given(ids)
def test_keys_sort_as_bytes_do(values):
    keys = np.sort(keys_of(pa.array(values, ID)))
    assert column_of(keys).to_pylist() == sorted(values)


def test_keys_that_end_in_zero_bytes_stay_apart():
    keys = keys_of(pa.array([b"\0" * 16, b"\0" * 15 + b"\1", b"a" + b"\0" * 15], ID))
    assert len(np.unique(keys)) == 3


@given(ids, st.integers(1, 7))
def test_partitions_follow_the_order_of_keys_and_lose_no_row(values, partitions):
    keys = np.sort(keys_of(pa.array(values, ID)))
    partition = partition_of(keys, partitions)
    assert (np.diff(partition) >= 0).all()
    assert ((partition >= 0) & (partition < partitions)).all()
    pieces = split_table(pa.table({"id": column_of(keys)}), partition, partitions)
    assert len(pieces) == partitions
    assert pa.concat_tables(pieces)["id"].to_pylist() == column_of(keys).to_pylist()


@given(ids, ids)
def test_find_agrees_with_a_dictionary(asked, stored):
    within = np.unique(keys_of(pa.array(stored, ID)))
    place = {key: index for index, key in enumerate(column_of(within).to_pylist())}
    assert find(keys_of(pa.array(asked, ID)), within).tolist() == [place.get(key, -1) for key in asked]
