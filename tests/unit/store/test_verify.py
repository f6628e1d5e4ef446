import numpy as np
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from davir_ray import storage
from davir_ray.errors import DamagedPart, StoreError
from davir_ray.ids import column_of
from davir_ray.logprobs.kinds import APART, LOSS
from davir_ray.store import verify as module
from davir_ray.store.compaction import compact
from davir_ray.store.labels import labelled
from davir_ray.store.measurements import MeasurementStore, part_name
from davir_ray.store.verify import verify
from tests.measured import keys, store_with

SOUND = (("ab", [1.0, 2.0]), ("bc", [2.0, 3.0]))


def write(store: MeasurementStore, name: str, table: pa.Table) -> str:
    uri = storage.join(store.folder, f"{name}.parquet")
    storage.write_table(uri, labelled(table, holds="measurements", of=store.fingerprint))
    return uri


def table(letters: str, losses, tokens) -> pa.Table:
    columns = [column_of(keys(*letters)), pa.array(losses), pa.array(tokens, pa.int32())]
    return pa.Table.from_arrays(columns, schema=LOSS.columns)


def damage(store: MeasurementStore) -> list[tuple[str, str]]:
    return [(one.uri, str(one)) for one in verify(store)]


def test_a_sound_store_has_no_damage(tmp_path):
    store = store_with(tmp_path / "m", *SOUND)
    store.write_failed("chunk", {keys("z")[0]: "died"})
    assert damage(store) == []
    compact(store)
    assert damage(store) == []
    assert damage(MeasurementStore(str(tmp_path / "none"), LOSS)) == []


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (part_name(keys("x")), table("x", [np.nan], [1]), "a loss of nan"),
        (part_name(keys("x")), table("x", [np.inf], [1]), "a loss of inf"),
        (part_name(keys("x")), table("x", [-0.5], [1]), "a loss of -0.5"),
        (part_name(keys("x")), table("x", [1.0], [0]), "no token that counts"),
        (part_name(keys("y")), table("x", [1.0], [1]), "other sequences than its name says"),
        (
            part_name(keys("x")),
            table("x", [1.0], [1]).select(["sequence_id", "loss"]),
            "expected the columns",
        ),
        (
            part_name(keys("x")),
            table("x", [1.0], [1]).cast(pa.schema([f.with_nullable(True) for f in LOSS.columns])),
            "expected the columns",
        ),
    ],
)
def test_a_part_that_says_what_cannot_be_is_named_with_the_reason(tmp_path, name, content, reason):
    store = store_with(tmp_path / "m", *SOUND)
    uri = write(store, name, content)
    ((named, why),) = damage(store)
    assert named == uri
    assert reason in why
    assert uri in why


@pytest.mark.parametrize("cut", [0, 10, 300])
def test_a_torn_part_is_named(tmp_path, cut):
    store = store_with(tmp_path / "m", *SOUND)
    uri = store.parts()[0].uri
    storage.write_atomic(uri, storage.read_bytes(uri)[:cut])
    assert [named for named, _ in damage(store)] == [uri]


def test_a_torn_file_of_failures_is_named(tmp_path):
    store = store_with(tmp_path / "m", *SOUND)
    store.write_failed("chunk", {keys("z")[0]: "died"})
    (file,) = store.failed_parts()
    storage.write_atomic(file.uri, b"torn")
    assert [named for named, _ in damage(store)] == [file.uri]


@pytest.mark.parametrize("rows_at_once", [1, 2, 1000])
def test_parts_that_contradict_each_other_are_named_and_others_are_not(tmp_path, monkeypatch, rows_at_once):
    monkeypatch.setattr(module, "ROWS_AT_ONCE", rows_at_once)
    store = store_with(tmp_path / "m", ("ab", [1.0, 2.0]), ("bc", [9.0, 3.0]), ("ac", [1.0, 3.0]))
    expected = {storage.join(store.folder, f"{part_name(keys(*pair))}.parquet") for pair in ("ab", "bc")}
    assert {uri for uri, _ in damage(store)} == expected
    assert all("says otherwise" in reason for _, reason in damage(store))


def test_another_count_of_tokens_contradicts_too(tmp_path):
    store = store_with(tmp_path / "m", ("ab", [1.0, 2.0]))
    write(store, part_name(keys("a")), table("a", [1.0], [2]))
    assert len(damage(store)) == 2


def test_what_rounds_differently_does_not_contradict(tmp_path):
    store = store_with(tmp_path / "m", ("ab", [1.0, 2.0]), ("a", [1.0 + 0.9 * APART]))
    assert damage(store) == []


def test_a_part_without_rows_is_no_damage(tmp_path):
    store = store_with(tmp_path / "m", *SOUND)
    write(store, part_name(keys()), LOSS.columns.empty_table())
    assert damage(store) == []
    compact(store)
    assert damage(store) == []


def test_a_filesystem_that_refuses_is_not_taken_for_damage(monkeypatch):
    store = store_with("memory://davir-test-verify/m", *SOUND)

    def refuse(self, path, start=None, end=None, **options):
        raise PermissionError(path)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    with pytest.raises(StoreError, match="the storage fails: PermissionError") as caught:
        damage(store)
    assert not isinstance(caught.value, DamagedPart)
