"""Patterns find what Python's own glob finds, on any filesystem, and a folder that cannot be listed is an error."""

import json
import os
import subprocess
import sys
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


def saved(folder, *names, listed=None):
    for name in ("dataset_info.json", *names):
        storage.write_atomic(str(folder / name), b"{}")
    files = [{"filename": name} for name in (names if listed is None else listed)]
    storage.write_atomic(str(folder / "state.json"), json.dumps({"_data_files": files}).encode())


@pytest.mark.parametrize("pattern", ["saved", "saved/*"])
def test_of_save_to_disk_the_rows_are_taken_and_neither_its_metadata_nor_a_cache(tmp_path, pattern):
    saved(tmp_path / "saved", "data-0.arrow", "cache-1f.arrow", listed=["data-0.arrow"])
    found = expand({"s": [str(tmp_path / pattern)]})
    assert [file.path for file in found] == [f"{tmp_path}/saved/data-0.arrow"]
    assert expand({"s": [f"{tmp_path}/saved/cache-1f.arrow"]})[0].kind == "arrow"


def test_of_several_splits_of_save_to_disk_one_has_to_be_named(tmp_path):
    for split in ("test", "train"):
        saved(tmp_path / "saved" / split, "data-0.arrow")
    storage.write_atomic(str(tmp_path / "saved/dataset_dict.json"), b'{"splits": ["test", "train"]}')
    with pytest.raises(CorpusError, match=rf"holds the splits test, train .* such as {tmp_path}/saved/test"):
        expand({"s": [str(tmp_path / "saved")]})
    assert len(expand({"s": [str(tmp_path / "saved/train")]})) == 1
    storage.delete(str(tmp_path / "saved/test"))
    assert len(expand({"s": [str(tmp_path / "saved")]})) == 1


def test_a_folder_of_save_to_disk_that_lacks_a_file_is_refused(tmp_path):
    saved(tmp_path / "saved", "data-0.arrow", listed=["data-0.arrow", "data-1.arrow"])
    with pytest.raises(CorpusError, match=r"saved lacks data-1\.arrow, which its state\.json names"):
        expand({"s": [str(tmp_path / "saved")]})


def test_a_data_set_of_the_hub_without_a_network_is_an_error_that_says_so(tmp_path):
    code = (
        "from davir_ray.corpus.paths import expand\n"
        "from davir_ray.errors import CorpusError\n"
        "try: expand({'s': ['hf://datasets/org/name/**/*.parquet']})\n"
        "except CorpusError as error: print(error)\n"
    )
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=offline, timeout=120
    )
    assert "hf://datasets/org/name/**/*.parquet: the storage fails: OfflineModeIsEnabled" in done.stdout
    assert "hf download org/name --repo-type dataset --local-dir data" in done.stdout


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
    (tmp_path / "rows.tsv").write_text("a,b")
    with pytest.raises(CorpusError, match=r"matches 1 files \(rows\.tsv\), none of them with a suffix"):
        expand({"s": [str(tmp_path)]})
