import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from davir_ray import storage
from davir_ray.errors import DamagedPart
from davir_ray.ids import column_of
from davir_ray.logprobs.kinds import LOSS
from davir_ray.store.measurements import (
    BYTES_AT_ONCE,
    PARTS_AT_ONCE,
    MeasurementStore,
    bundles,
    fingerprint,
    part_name,
)
from tests.measured import held, keys, sorted_losses, store_with


def test_what_is_written_is_read_back(tmp_path):
    store = store_with(tmp_path / "m", ("ab", [1.0, 2.0]), ("c", [3.0]))
    found, losses = held(store)
    assert found.tolist() == keys("a", "b", "c").tolist()
    assert losses.tolist() == [1.0, 2.0, 3.0]


def test_writing_a_part_twice_leaves_one_part(tmp_path):
    store = store_with(tmp_path / "m", ("ab", [1.0, 2.0]), ("ab", [1.0, 2.0]))
    assert store.part_names() == {part_name(keys("a", "b"))}


def test_a_sequence_in_two_parts_counts_once(tmp_path):
    store = store_with(tmp_path / "m", ("ab", [1.0, 2.0]), ("bc", [2.0, 3.0]))
    assert held(store)[1].tolist() == [1.0, 2.0, 3.0]


def test_a_store_that_was_never_written_is_empty(tmp_path):
    store = MeasurementStore(str(tmp_path / "none"), LOSS)
    assert store.parts() == []
    assert store.chunks_done() == frozenset()
    assert len(store.read([])) == 0


def test_a_torn_part_is_named(tmp_path):
    store = store_with(tmp_path / "m", ("ab", [1.0, 2.0]))
    (part,) = store.parts()
    storage.write_atomic(part.uri, storage.read_bytes(part.uri)[:100])
    with pytest.raises(DamagedPart, match=part_name(keys("a", "b"))):
        store.read([part.uri])


def test_a_part_with_other_columns_is_refused(tmp_path):
    uri = str(tmp_path / "x.parquet")
    storage.write_table(uri, pa.table({"sequence_id": column_of(keys("a"))}))
    with pytest.raises(DamagedPart, match="expected the columns"):
        MeasurementStore(str(tmp_path), LOSS).read_part(uri)


def test_a_part_that_was_removed_is_left_out(tmp_path):
    store = store_with(tmp_path / "m", ("ab", [1.0, 2.0]), ("c", [3.0]))
    listed = [part.uri for part in store.parts()]
    storage.delete(storage.join(store.folder, f"{part_name(keys('c'))}.parquet"))
    assert sorted_losses(store.read(listed))[1].tolist() == [1.0, 2.0]


@given(st.permutations([3.0, 1.0, 2.0]))
def test_of_measurements_that_differ_the_smallest_counts_in_any_order(losses):
    ids = column_of(keys("a", "b", "a", "b", "a", "b"))
    both = np.repeat(losses, 2) + np.tile([0.0, 10.0], 3)
    table = pa.table([ids, both, np.ones(6, dtype=np.int32)], schema=LOSS.columns)
    found, smallest = sorted_losses(table)
    assert (found.tolist(), smallest.tolist()) == (keys("a", "b").tolist(), [1.0, 11.0])


def test_small_parts_are_read_many_at_once():
    files = [storage.File(str(index), 1, 0.0) for index in range(2 * PARTS_AT_ONCE + 1)]
    assert [len(one) for one in bundles(files)] == [PARTS_AT_ONCE, PARTS_AT_ONCE, 1]


@given(st.lists(st.integers(0, 2 * BYTES_AT_ONCE), max_size=200))
def test_parts_are_dealt_out_in_order_into_lists_of_bounded_size(sizes):
    files = [storage.File(str(index), size, 0.0) for index, size in enumerate(sizes)]
    dealt = bundles(files)
    assert [file for one in dealt for file in one] == files
    for one in dealt:
        assert 1 <= len(one) <= PARTS_AT_ONCE
        assert len(one) == 1 or sum(file.size for file in one) <= BYTES_AT_ONCE


def test_the_fingerprint_changes_with_kind_model_and_numerics_only():
    one = fingerprint("loss", "model", {"dtype": "float32", "engine": "transformers"})
    assert one == fingerprint("loss", "model", {"engine": "transformers", "dtype": "float32"})
    others = [
        fingerprint("loss", "other", {"dtype": "float32"}),
        fingerprint("loss", "model", {"dtype": "bfloat16"}),
        fingerprint("token_loss", "model", {"dtype": "float32", "engine": "transformers"}),
    ]
    assert len({one, *others}) == 4
