"""Every row of a hostile corpus ends in exactly one place, with the right status."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from davir_ray import pipeline
from davir_ray.errors import UnreadableFile
from davir_ray.recipe import parse_recipe
from davir_ray.schema import Status
from tests.hostile import write_hostile_corpus

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def recipe(tmp_path, models, **corpus):
    base, reference = models
    tree = {
        "corpus": {"paths": str(tmp_path / "corpus")} | corpus,
        "tokens": {"max_length": 2048},
        "models": {"base": base, "reference": reference},
        "engine": {"type": "hash", "num_cpus": 1},
        "select": [{"type": "fraction", "fraction": 0.5}],
        "store": str(tmp_path / "store"),
        "output": str(tmp_path / "runs"),
    }
    return parse_recipe(tree, "hostile")


def test_unreadable_files_stop_the_run_and_are_named(tmp_path, tiny_models):
    files = write_hostile_corpus(tmp_path / "corpus")
    with pytest.raises(UnreadableFile) as caught:
        pipeline.score(recipe(tmp_path, tiny_models), "hostile")
    for file in files:
        assert (file.path in str(caught.value)) == (file.rows is None)


def test_every_row_is_accounted_for(tmp_path, tiny_models):
    files = write_hostile_corpus(tmp_path / "corpus")
    record = pipeline.score(recipe(tmp_path, tiny_models, on_bad_file="skip"), "hostile")
    unreadable = {file.path for file in files if file.rows is None}
    assert {bad.path for bad in record.bad_files} == unreadable

    expected = Counter(expected_status(row) for file in files for row in file.rows or ())
    repeats = sum(row.what.startswith("duplicate") for file in files for row in file.rows or ())
    expected[Status.DUPLICATE] = repeats - 1
    expected[Status.OK] -= repeats - 1
    rows = pq.read_table(record.scored).to_pylist()
    assert Counter(row["status"] for row in rows) == expected
    assert record.status == dict(Counter(row["status"] for row in rows))
    assert record.rows == len(rows) == sum(expected.values())
    assert all(row["reason"] for row in rows if row["status"] != "ok")
    assert not any(row["selected"] for row in rows if row["rank"] is None)
    lines = [json.loads(line) for file in Path(record.run_dir).glob("unscored/*") for line in file.open()]
    assert Counter(line["status"] for line in lines) == Counter(
        row["status"] for row in rows if row["rank"] is None
    )
    assert len({(line["file"], line["row"]) for line in lines}) == len(lines)


def test_a_file_that_is_damaged_behind_a_good_footer_is_skipped_or_stops_the_run(tmp_path, tiny_models):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("a", "b"):
        rows = [{"question": f"{name}{i}?", "answer": "x" * 50 + str(i)} for i in range(50)]
        pq.write_table(
            pa.Table.from_pylist(rows), folder / f"{name}.parquet", compression="none", use_dictionary=False
        )
    damaged = bytearray((folder / "a.parquet").read_bytes())
    damaged[10:400] = b"\xff" * 390
    (folder / "a.parquet").write_bytes(damaged)
    with pytest.raises(UnreadableFile, match=r"a\.parquet"):
        pipeline.score(recipe(tmp_path, tiny_models), "hostile")
    record = pipeline.score(recipe(tmp_path, tiny_models, on_bad_file="skip"), "hostile")
    assert record.rows == 50
    assert [bad.path for bad in record.bad_files] == [str(folder / "a.parquet")]
    with pytest.raises(UnreadableFile, match=r"a\.parquet"):
        pipeline.score(recipe(tmp_path, tiny_models), "hostile")


def expected_status(row) -> str:
    """The byte-level test tokenizer makes a token of every byte, so the long rows are cut."""
    return Status.TRUNCATED if row.what in ("over-long", "huge") else row.status
