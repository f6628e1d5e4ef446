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
