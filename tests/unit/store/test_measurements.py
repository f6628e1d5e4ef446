import numpy as np
import pyarrow as pa
import pytest

from davir_ray import storage
from davir_ray.errors import StoreError
from davir_ray.store.keys import column_of
from davir_ray.store.measurements import MeasurementStore, fingerprint, part_name, read_parts, sorted_losses


def keys(*names: str) -> np.ndarray:
    return np.array([name.encode().ljust(16, b".") for name in names], dtype="S16")


def store_with(folder, *parts):
    store = MeasurementStore(str(folder))
    for names, losses in parts:
        store.write(keys(*names), np.array(losses), np.ones(len(names), dtype=np.int32))
    return store


def test_what_is_written_is_read_back(tmp_path):
    store = store_with(tmp_path / "m", ("ab", [1.0, 2.0]), ("c", [3.0]))
    found, losses = sorted_losses(read_parts(store.parts()))
    assert found.tolist() == keys("a", "b", "c").tolist()
    assert losses.tolist() == [1.0, 2.0, 3.0]


def test_writing_a_part_twice_leaves_one_part(tmp_path):
    store = store_with(tmp_path / "m", ("ab", [1.0, 2.0]), ("ab", [1.0, 2.0]))
    assert store.part_names() == {part_name(keys("a", "b"))}


def test_a_sequence_in_two_parts_counts_once(tmp_path):
    store = store_with(tmp_path / "m", ("ab", [1.0, 2.0]), ("bc", [2.0, 3.0]))
    assert sorted_losses(read_parts(store.parts()))[1].tolist() == [1.0, 2.0, 3.0]


def test_a_store_that_was_never_written_is_empty(tmp_path):
    assert MeasurementStore(str(tmp_path / "none")).parts() == []
    assert len(read_parts([])) == 0


def test_a_torn_part_is_named(tmp_path):
    store = store_with(tmp_path / "m", ("ab", [1.0, 2.0]))
    (uri,) = store.parts()
    storage.write_atomic(uri, storage.read_bytes(uri)[:100])
    with pytest.raises(StoreError, match=part_name(keys("a", "b"))):
        read_parts([uri])


def test_a_part_with_other_columns_is_refused(tmp_path):
    uri = str(tmp_path / "x.parquet")
    storage.write_table(uri, pa.table({"sequence_id": column_of(keys("a"))}))
    with pytest.raises(StoreError, match="expected the columns"):
        read_parts([uri])


def test_the_fingerprint_changes_with_model_and_numerics_only():
    one = fingerprint("model", {"dtype": "float32", "engine": "transformers"})
    assert one == fingerprint("model", {"engine": "transformers", "dtype": "float32"})
    assert (
        len({one, fingerprint("other", {"dtype": "float32"}), fingerprint("model", {"dtype": "bfloat16"})})
        == 3
    )
