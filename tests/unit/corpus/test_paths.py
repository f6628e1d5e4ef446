"""Patterns find what Python's own glob finds, on any filesystem, and a folder that cannot be listed is an error."""

from glob import glob

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from davir_ray import storage
from davir_ray.corpus.paths import expand
from davir_ray.errors import CorpusError

FILES = (
    "a.parquet",
    "part-0.parquet",
    "part-1.parquet",
    "part-10.parquet",
    "note.txt",
    "deep/part-0.parquet",
    "deep/deeper/part-0.parquet",
    "deep2/part-7.parquet",
    "x.parquet/inside.parquet",
)
PATTERNS = (
    "*.parquet",
    "part-?.parquet",
    "part-[01].parquet",
    "part-*",
    "*/part-*.parquet",
    "d*/*.parquet",
    "deep/*/part-0.parquet",
    "**/*.parquet",
    "deep/**/*.parquet",
)


def found(folder: str, pattern: str) -> list[str]:
    name = folder.rsplit("/", 1)[-1]
    return [file.path.split(f"/{name}/", 1)[1] for file in expand({"s": [f"{folder}/{pattern}"]})]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_finds_what_the_glob_of_python_finds(tmp_path, pattern):
    memory = f"memory://{tmp_path.name}"
    for name in FILES:
        for folder in (str(tmp_path), memory):
            storage.write_atomic(storage.join(folder, name), b"PAR1")
    expected = sorted(
        name
        for name in glob(pattern, root_dir=tmp_path, recursive=True)
        if (tmp_path / name).is_file() and name.endswith(".parquet")
    )
    assert len(expected) > 0
    assert found(str(tmp_path), pattern) == expected
    assert found(memory, pattern) == expected
    storage.delete(memory)


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_an_empty_folder(tmp_path, monkeypatch):
    memory = f"memory://{tmp_path.name}"
    for name in ("a/1.parquet", "b/1.parquet"):
        storage.write_atomic(storage.join(memory, name), b"PAR1")
    real = MemoryFileSystem.ls

    def ls(self, path, detail=True, **options):
        if path.endswith("/b"):
            raise TimeoutError("no answer")
        return real(self, path, detail, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    with pytest.raises(CorpusError, match=r"memory://.*: the storage fails: TimeoutError: no answer"):
        found(memory, "*/*.parquet")
    storage.delete(memory)


@pytest.mark.parametrize("pattern", ["saved", "saved/*", "saved/data-0.arrow"])
def test_a_folder_of_save_to_disk_is_named_with_the_way_to_convert_it(tmp_path, pattern):
    for name in ("data-0.arrow", "dataset_info.json", "state.json"):
        storage.write_atomic(str(tmp_path / "saved" / name), b"{}")
    with pytest.raises(CorpusError) as caught:
        expand({"s": [str(tmp_path / pattern)]})
    assert "data-0.arrow is Arrow, as datasets.save_to_disk" in str(caught.value)
    assert f"datasets.load_from_disk('{tmp_path}/saved').to_parquet('rows.parquet')" in str(caught.value)


def test_a_data_set_on_the_hub_is_told_from_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError) as caught:
        expand({"s": [storage.absolute("tatsu-lab/alpaca")]})
    assert "no such file or folder; `tatsu-lab/alpaca` looks like the id of a data set" in str(caught.value)
    assert "hf download tatsu-lab/alpaca --repo-type dataset" in str(caught.value)
    assert "hf://datasets/tatsu-lab/alpaca/**/*.parquet" in str(caught.value)


@pytest.mark.parametrize("path", ["data/rows", "a/b/c", "rows", "../x/rows"])
def test_a_path_that_is_no_id_is_only_missing(tmp_path, monkeypatch, path):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match=r"no such file or folder$"):
        expand({"s": [storage.absolute(path)]})


def test_files_of_other_kinds_are_named(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b")
    with pytest.raises(CorpusError, match=r"matches 1 files \(rows\.csv\), none of them with a suffix"):
        expand({"s": [str(tmp_path)]})
