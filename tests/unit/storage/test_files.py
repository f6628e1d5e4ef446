import os
import pickle
import resource

import pyarrow as pa
import pytest

from davir_ray import storage
from davir_ray.errors import DamagedPart, Unreachable
from davir_ray.storage.filesystems import filesystem

TABLE = pa.table({"n": pa.chunked_array([[1, 2], [3]]), "text": ["a", None, "c"]})


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    uri = str(tmp_path / "store") if request.param == "local" else "memory://davir-test/store"
    yield uri
    storage.delete(uri)


def test_a_table_comes_back_as_it_was(folder):
    uri = storage.join(folder, "deep", "part.parquet")
    storage.write_table(uri, TABLE)
    assert storage.read_table(uri).equals(TABLE)
    assert storage.read_table(uri, ["text"]).column_names == ["text"]
    assert storage.exists(uri)


def test_equal_tables_give_equal_bytes(folder):
    one, other = storage.join(folder, "one.parquet"), storage.join(folder, "other.parquet")
    storage.write_table(one, TABLE)
    storage.write_table(other, pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)]))
    assert storage.read_bytes(one) == storage.read_bytes(other)


def test_files_are_listed_by_name_and_a_missing_folder_has_none(folder):
    for name in ("b.parquet", "a.parquet", "c.json"):
        storage.write_atomic(storage.join(folder, name), b"x")
    assert storage.list_files(folder, ".parquet") == [f"{folder}/a.parquet", f"{folder}/b.parquet"]
    assert storage.list_files(storage.join(folder, "missing"), ".parquet") == []


def test_a_listing_is_never_stale(folder):
    storage.write_atomic(storage.join(folder, "a.json"), b"1")
    assert len(storage.list_files(folder, ".json")) == 1
    storage.write_atomic(storage.join(folder, "b.json"), b"2")
    assert len(storage.list_files(folder, ".json")) == 2
    storage.delete(storage.join(folder, "a.json"))
    assert storage.list_files(folder, ".json") == [f"{folder}/b.json"]


def test_an_older_file_is_replaced(folder):
    uri = storage.join(folder, "a.json")
    storage.write_atomic(uri, b"old and longer")
    storage.write_atomic(uri, b"new")
    assert storage.read_bytes(uri) == b"new"


def test_deleting_what_is_not_there_does_nothing(folder):
    storage.delete(storage.join(folder, "nothing"))
    assert not storage.exists(storage.join(folder, "nothing"))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    uri = str(tmp_path / "a.json")
    storage.write_atomic(uri, b"old")

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Unreachable, match=r"a\.json: the storage fails: OSError: disk full"):
        storage.write_atomic(uri, b"new")
    assert os.listdir(tmp_path) == ["a.json"]
    assert storage.read_bytes(uri) == b"old"


def test_a_file_that_finds_no_room_is_named_and_leaves_the_old_one(tmp_path):
    uri = str(tmp_path / "a.json")
    storage.write_atomic(uri, b"old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))  # the kernel refuses what lies behind
    try:
        with pytest.raises(Unreachable, match=r"a\.json: the storage fails: OSError: .*File too large"):
            storage.write_atomic(uri, b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert os.listdir(tmp_path) == ["a.json"]
    assert storage.read_bytes(uri) == b"old"


def test_an_error_of_the_storage_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(Unreachable("a.json: the storage fails: no space left")))
    assert str(error) == "a.json: the storage fails: no space left"
    assert error.exit_code == 6


@pytest.mark.parametrize("write", [storage.write_atomic, storage.create])
def test_a_file_in_the_place_of_a_folder_is_an_error_of_the_storage(tmp_path, write):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreachable, match=r"file/a\.json: cannot be written: FileExistsError"):
        write(str(tmp_path / "file" / "a.json"), b"x")


def test_a_half_written_file_is_not_listed(tmp_path):
    (tmp_path / f"{storage.TEMPORARY}123-a.parquet").write_bytes(b"half")
    assert storage.list_files(str(tmp_path), ".parquet") == []


def test_local_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert filesystem("some/file")[1] == str(tmp_path / "some/file")
    storage.write_atomic("some/file", b"x")
    assert (tmp_path / "some/file").read_bytes() == b"x"


def test_joining_keeps_the_scheme():
    assert storage.join("s3://bucket/", "a", "b") == "s3://bucket/a/b"
    assert storage.join("/", "a") == "/a"
    assert storage.join("memory://", "a") == "memory://a"


@pytest.mark.parametrize("place", ["local", "memory"])
def test_a_file_is_created_once_and_never_replaced(tmp_path, place):
    folder = str(tmp_path) if place == "local" else f"memory://created-{tmp_path.name}"
    uri = storage.join(folder, "deep", "x.json")
    assert storage.create(uri, b"one")
    assert not storage.create(uri, b"two")
    assert storage.read_bytes(uri) == b"one"
    assert storage.list_files(storage.join(folder, "deep")) == [uri]


@pytest.mark.parametrize("place", ["local", "memory"])
def test_the_folders_of_a_folder_are_listed(tmp_path, place):
    folder = str(tmp_path) if place == "local" else f"memory://folders-{tmp_path.name}"
    for name in ("b/x", "a/x", "c"):
        storage.write_atomic(storage.join(folder, name), b"1")
    assert storage.list_folders(folder) == [storage.join(folder, "a"), storage.join(folder, "b")]
    assert storage.list_folders(storage.join(folder, "nowhere")) == []


@pytest.mark.parametrize(
    "read",
    [storage.read_table, lambda uri: storage.read_row_groups(uri, range(1)), storage.read_footer],
    ids=["table", "row groups", "footer"],
)
def test_a_part_whose_columns_have_no_names_any_more_is_damaged(tmp_path, read):
    part = tmp_path / "part.parquet"
    storage.write_table(str(part), pa.table({"loss": [1.0]}))
    part.write_bytes(part.read_bytes().replace(b"loss", b"\xffoss"))
    with pytest.raises(DamagedPart, match=r"part.parquet: not readable as Parquet"):
        read(str(part))


@pytest.mark.parametrize("place", ["local", "memory"])
def test_row_groups_are_read_by_number(tmp_path, place):
    folder = str(tmp_path) if place == "local" else "memory://davir-test-groups"
    uri = storage.join(folder, "part.parquet")
    storage.write_table(uri, pa.table({"loss": [1.0, 2.0, 3.0, 4.0, 5.0]}), 2)
    assert storage.read_row_groups(uri, range(1, 3))["loss"].to_pylist() == [3.0, 4.0, 5.0]
    assert len(storage.read_row_groups(uri, range(0))) == 0
