import json
import os

import pyarrow as pa
import pytest

from davir_ray import storage
from davir_ray.cli.store_lines import prune_lines
from davir_ray.errors import StoreError
from davir_ray.schema import EXAMPLES, TOKENS
from davir_ray.store.compaction import compact
from davir_ray.store.holdings import note_parts, note_use
from davir_ray.store.info import info_lines, store_info
from davir_ray.store.prepared import Prepared
from davir_ray.store.prune import prunable
from tests.measured import FINGERPRINTS, keys, store_with

DAY = 86400.0


def aged(folder, days: float) -> None:
    """Make every file below a folder so many days old."""
    for file in storage.files_below(str(folder)):
        os.utime(file.uri, times=(file.modified - days * DAY,) * 2)


@pytest.fixture
def place(tmp_path):
    """A store with two models and two prepared corpora, one of each last used ten days ago."""
    for fingerprint, parts in zip(
        FINGERPRINTS, ([("ab", [1.0, 2.0]), ("c", [3.0])], [("ab", [1.0, 2.0])]), strict=True
    ):
        store = store_with(tmp_path / "measurements" / fingerprint, *parts)
        numerics = {"dtype": "float32"}
        store.describe(
            {
                "kind": "loss",
                "model": "hash",
                "path": f"model {fingerprint[0]}",
                "adapter": None,
                "numerics": numerics,
            }
        )
    store.write_failed("chunk", {keys("z")[0]: "died"})
    for digest in "cd":
        prepared = Prepared(str(tmp_path / "prepared" / (digest * 32)), ("one", "two"))
        for split in range(2):
            prepared.write(split, EXAMPLES.empty_table(), TOKENS.empty_table())
    for old in (f"measurements/{'b' * 32}", f"prepared/{'d' * 32}"):
        aged(tmp_path / old, 10)
    return tmp_path


def bytes_below(folder) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_info_counts_what_is_there(place):
    info = store_info(str(place))
    one, other = info.models
    assert (one.fingerprint, other.fingerprint) == FINGERPRINTS
    assert (one.sequences, one.parts, one.failed) == (3, 2, 0)
    assert (other.sequences, other.parts, other.failed) == (2, 1, 1)
    assert one.bytes == bytes_below(place / "measurements" / one.fingerprint)
    assert one.description["path"] == "model a"
    assert 0 <= one.newest_part < 60
    assert 0 <= other.newest_part - 10 * DAY < 60
    assert [(p.digest, p.splits) for p in info.prepared] == [("c" * 32, 2), ("d" * 32, 2)]
    assert info.prepared[0].bytes == bytes_below(place / "prepared" / ("c" * 32))
    compact(store_with(place / "measurements" / one.fingerprint))
    assert (store_info(str(place)).models[0].sequences, store_info(str(place)).models[0].parts) == (3, 1)


def test_info_is_a_line_a_model_and_a_line_a_corpus_and_fits_into_json(place):
    info = store_info(str(place))
    head, one, other, *prepared = info_lines(info)
    assert str(place) in head
    assert "3 sequences, 0 failed; 2 parts" in one
    assert "model a (dtype=float32)" in one
    assert "10d 00h" in other
    assert len(prepared) == 2
    assert json.loads(json.dumps(info.as_dict()))["models"][0]["sequences"] == 3


def test_info_of_a_damaged_part_says_where_to_look(place):
    uri = store_with(place / "measurements" / FINGERPRINTS[0]).parts()[0].uri
    storage.write_atomic(uri, b"torn")
    with pytest.raises(StoreError, match="davir store verify"):
        store_info(str(place))


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "measurement").mkdir()
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(StoreError, match="holds no store"):
            store_info(str(folder))


def names(holdings) -> list[str]:
    return [one.name for one in holdings]


def test_what_is_not_kept_goes_and_corpora_stay(place):
    assert names(prunable(str(place), [FINGERPRINTS[0]], None)) == [FINGERPRINTS[1]]
    assert names(prunable(str(place), FINGERPRINTS, None)) == []


def test_what_was_not_used_for_long_goes(place):
    old = [FINGERPRINTS[1], "d" * 32]
    assert names(prunable(str(place), [], 9 * DAY)) == old
    assert names(prunable(str(place), [], 11 * DAY)) == []
    assert names(prunable(str(place), [FINGERPRINTS[1]], 9 * DAY)) == old[1:]


def test_parts_that_no_corpus_in_use_has_go(place):
    folder = place / "prepared" / ("d" * 32)
    note_parts(str(folder), "older", ["one", "two"])
    aged(folder, 10)
    note_parts(str(folder), "newer", ["two"])
    (found,) = prunable(str(place), [FINGERPRINTS[1]], 9 * DAY)
    gone = {file.uri.removeprefix(f"{folder}/") for file in found.files}
    assert gone == {"examples/one.parquet", "tokens/one.parquet", "used/older.txt"}
    list(prune_lines(str(place), FINGERPRINTS, 9 * DAY, remove=True))
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {"examples/two.parquet", "tokens/two.parquet", "used/newer.txt"}


def test_a_run_that_measures_nothing_keeps_a_model_in_use(place):
    note_use(str(place / "measurements" / ("b" * 32)), "runs/mine")
    note_parts(str(place / "prepared" / ("d" * 32)), "corpus", ["one", "two"])
    assert prunable(str(place), [], 9 * DAY) == []
    info = store_info(str(place))
    assert info.models[1].newest_part > 9 * DAY > info.models[1].unused


def test_a_compaction_is_no_use(place):
    model = store_with(place / "measurements" / FINGERPRINTS[0], ("d", [4.0]))
    note_use(model.folder, "runs/mine")
    aged(model.folder, 10)
    compact(model)
    assert FINGERPRINTS[0] in names(prunable(str(place), [], 9 * DAY))


def test_a_name_to_keep_that_is_not_there_is_a_slip(place):
    with pytest.raises(StoreError, match="no measurements of aa"):
        prunable(str(place), ["aa"], None)


def test_a_model_whose_description_is_gone_is_told_of(place):
    storage.delete(str(place / "measurements" / FINGERPRINTS[0] / "model.json"))
    assert any("no model.json" in line for line in info_lines(store_info(str(place))))


def test_a_part_that_goes_while_it_is_counted_counts_nothing(place, monkeypatch):
    folder = place / "measurements" / FINGERPRINTS[0]
    listed = storage.files_below(str(folder))
    storage.delete(next(file.uri for file in listed if file.uri.endswith(".parquet")))
    monkeypatch.setattr(storage, "files_below", lambda uri: listed if uri == str(folder) else [])
    assert store_info(str(place)).models[0].sequences in (1, 2)


def test_sizes_and_ages_of_files_are_what_the_filesystem_says(tmp_path):
    uri = str(tmp_path / "x" / "y" / "a.parquet")
    storage.write_table(uri, pa.table({"a": [1]}))
    os.utime(uri, times=(1000.0, 1000.0))
    (file,) = storage.files_below(str(tmp_path))
    assert file == storage.File(uri, os.path.getsize(uri), 1000.0)
    assert file.stem == "a"
    assert storage.list_folders(str(tmp_path)) == [str(tmp_path / "x")]
    assert storage.files_below(str(tmp_path / "none")) == storage.list_folders(str(tmp_path / "none")) == []
