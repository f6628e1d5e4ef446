"""The whole job on real Ray with the hash engine: the same result however the corpus lies, every row accounted for."""

import hashlib
import json
import random
import re
import shutil
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from davir_ray import pipeline
from davir_ray.cli import main
from davir_ray.coreset.export import SIDE
from davir_ray.errors import NotMeasured, RecipeError, StoreError
from davir_ray.measure.kind import known_kind
from davir_ray.recipe import parse_recipe
from davir_ray.runs.record import RunRecord, load_record
from davir_ray.schema import SCORED
from davir_ray.store.compaction import compact
from davir_ray.store.holdings import models_in

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

ROWS = [
    {
        "id": f"r{i}",
        "question": f"What is {i} plus {i % 7}?",
        "answer": f"It is {i + i % 7}." + " Yes." * (i % 5),
    }
    for i in range(120)
]
ROWS += [ROWS[i] | {"id": f"again{i}"} for i in (1, 2, 3)]


def write_corpus(folder: Path, rows: list[dict], shards: int) -> None:
    folder.mkdir(parents=True)
    for shard in range(shards):
        pq.write_table(
            pa.Table.from_pylist(rows[shard::shards]), folder / f"s{shard}.parquet", row_group_size=16
        )


def recipe(tmp_path: Path, models: tuple[str, str], folder: Path, **changes):
    base, reference = models
    tree = {
        "corpus": {"paths": f"{folder}/*.parquet", "id": "id"},
        "models": {"base": base, "reference": reference},
        "engine": {"type": "hash", "num_cpus": 1},
        "select": [{"type": "fraction", "fraction": 0.25}],
        "export": {"formats": ["parquet", "jsonl", "messages", "trl", "ids"], "rows_per_file": 20},
        "store": str(tmp_path / "store"),
        "output": str(tmp_path / "runs"),
    }
    return parse_recipe(tree | changes, "test")


def digest(record: RunRecord) -> dict[str, str]:
    """Hash every file of the scored table and of the core-set."""
    folders = [Path(record.scored), *map(Path, record.coreset.values())]
    files = sorted(file for folder in folders for file in folder.iterdir())
    root = Path(record.run_dir)
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def scored(record: RunRecord) -> list[dict]:
    return pq.read_table(record.scored).to_pylist()


def content(record: RunRecord) -> list:
    """Return what of a run does not depend on where its rows lie; of repeats the first by place is exported."""
    tables = [pq.read_table(record.scored), pq.read_table(record.coreset["parquet"])]
    places = ("id", "file", "row", "reason", "davir_file", "davir_row")
    kept = [table.drop_columns([name for name in places if name in table.column_names]) for table in tables]
    return [table.to_pylist() for table in kept]


@pytest.fixture(scope="module")
def first(tmp_path_factory, tiny_models, ray_cluster):
    """One run, as it comes."""
    folder = tmp_path_factory.mktemp("first")
    write_corpus(folder / "corpus", ROWS, 3)
    return pipeline.score(recipe(folder, tiny_models, folder / "corpus"), "test")


@pytest.fixture
def copied(first, tmp_path) -> Path:
    """Copy the store and the runs of the first run; return the folder of its corpus."""
    folder = Path(first.run_dir).parents[1]
    for name in ("store", "runs"):
        shutil.copytree(folder / name, tmp_path / name)
    return folder / "corpus"


@pytest.fixture
def again(first, tiny_models):
    """Start the first run once more."""
    folder = Path(first.run_dir).parents[1]
    return partial(pipeline.score, recipe(folder, tiny_models, folder / "corpus"), "test")


def test_a_run_ends_with_its_page_which_is_no_result(first):
    page = Path(first.run_dir, "report.html").read_text()
    assert f"<h1>{first.run_id}</h1>" in page
    assert len(re.findall(r"<header><b>rank", page)) == len([*first.best, *first.borderline, *first.worst])
    assert not [name for name in load_record(first.run_dir).results if "report" in name]


def test_a_run_that_was_stopped_before_its_page_gets_it_from_the_next_start(first, again):
    page = Path(first.run_dir, "report.html")
    page.unlink()
    again(writes_page=False)
    assert not page.exists()
    again()
    assert f"<h1>{first.run_id}</h1>" in page.read_text()


def test_every_row_is_in_the_scored_table_once(first):
    rows = scored(first)
    assert len(rows) == len(ROWS) == first.rows == sum(first.status.values())
    ranks = [row["rank"] for row in rows if row["rank"] is not None]
    assert ranks == list(range(1, len(ranks) + 1))
    assert pq.read_schema(next(Path(first.scored).iterdir())).equals(SCORED)


def test_the_score_is_davir_of_the_losses_beside_it(first):
    for row in scored(first):
        if row["status"] == "ok":
            expected = (row["base_loss"] - row["reference_loss"]) / row["base_loss"]
            assert row["score"] == pytest.approx(expected, rel=1e-12)


def test_the_best_quarter_is_selected_and_exported_unchanged(first):
    rows = scored(first)
    ranked = [row for row in rows if row["rank"] is not None]
    chosen = pq.read_table(first.coreset["parquet"]).to_pylist()
    assert len(chosen) == first.selected == len(ranked) // 4
    assert [row["rank"] for row in rows if row["selected"]] == list(range(1, len(chosen) + 1))
    assert [row["davir_rank"] for row in chosen] == list(range(1, len(chosen) + 1))
    originals = {row["id"]: row for row in ROWS}
    for row in chosen:
        assert {name: row[name] for name in ("id", "question", "answer")} == originals[row["id"]]
    assert list(chosen[0]) == ["id", "question", "answer", *SIDE]


def test_every_row_says_where_it_is_and_repeats_where_the_first_is(first):
    corpus = Path(first.run_dir).parents[1] / "corpus"
    files = {str(file): pq.read_table(file).to_pylist() for file in corpus.iterdir()}
    rows = scored(first)
    places = {(row["file"], row["row"]): row for row in rows}
    assert places.keys() == {(file, row) for file in files for row in range(len(files[file]))}
    assert all(files[row["file"]][row["row"]]["id"] == row["id"] for row in rows)
    chosen = pq.read_table(first.coreset["parquet"]).to_pylist()
    assert [(row["davir_file"], row["davir_row"]) for row in chosen] == [
        (row["file"], row["row"]) for row in rows if row["selected"]
    ]
    assert [row["davir_example_id"] for row in chosen] == [
        row["example_id"].hex() for row in rows if row["selected"]
    ]
    assert {row["davir_source"] for row in chosen} == {"corpus"}
    assert all(files[row["davir_file"]][row["davir_row"]]["id"] == row["id"] for row in chosen)
    repeats = [row for row in rows if row["status"] == "duplicate"]
    assert len(repeats) == 3
    for row in repeats:
        named = [place for place in places if row["reason"] == f"the same content as {place[0]}:{place[1]}"]
        assert named[0] < (row["file"], row["row"])
        assert (places[named[0]]["status"], places[named[0]]["example_id"]) == ("ok", row["example_id"])


def test_files_stand_in_the_scored_table_as_a_dictionary(first):
    metadata = pq.ParquetFile(next(Path(first.scored).iterdir())).metadata
    column = metadata.row_group(0).column(SCORED.names.index("file"))
    assert "RLE_DICTIONARY" in column.encodings
    assert column.total_compressed_size < 600, "three paths, and two bits a row"


def test_the_exports_hold_the_same_rows(first):
    chosen = pq.read_table(first.coreset["parquet"]).to_pylist()
    lines = {
        name: [line for file in sorted(Path(folder).iterdir()) for line in file.read_text().splitlines()]
        for name, folder in first.coreset.items()
        if name != "parquet"
    }
    own = [{name: value for name, value in row.items() if name not in SIDE} for row in chosen]
    assert [json.loads(line) for line in lines["jsonl"]] == own
    assert [json.loads(line) for line in lines["scores"]] == [
        {name: row[name] for name in SIDE} for row in chosen
    ]
    assert [json.loads(line)["messages"][-1]["content"] for line in lines["messages"]] == [
        r["answer"] for r in chosen
    ]
    assert [json.loads(line)["completion"][0]["content"] for line in lines["trl"]] == [
        r["answer"] for r in chosen
    ]
    assert lines["ids"] == [f"{row['id']}\t{row['davir_example_id']}" for row in chosen]


def test_exports_load_with_datasets(first):
    from datasets import load_dataset

    folder = first.coreset["parquet"]
    assert load_dataset("parquet", data_dir=folder, split="train").num_rows == first.selected
    for name in ("jsonl", "messages", "trl"):
        files = f"{first.coreset[name]}/*.jsonl"
        assert load_dataset("json", data_files=files, split="train").num_rows == first.selected


@pytest.mark.parametrize("shards", [pytest.param(1, marks=pytest.mark.nightly), 7])
def test_neither_order_nor_sharding_nor_actors_change_the_result(first, tmp_path, tiny_models, shards):
    rows = list(ROWS)
    random.Random(shards).shuffle(rows)
    write_corpus(tmp_path / "elsewhere", rows, shards)
    engine = {"type": "hash", "num_cpus": 0.25, "replicas": 4}
    again = pipeline.score(recipe(tmp_path, tiny_models, tmp_path / "elsewhere", engine=engine), "test")
    assert content(again) == content(first)


def test_many_splits_and_ranges_give_the_bytes_that_few_do_when_joined(
    first, tmp_path, tiny_models, monkeypatch
):
    monkeypatch.setattr("davir_ray.cluster.ray_exchange.ROWS_PER_TASK", -(-len(ROWS) // 5))
    monkeypatch.setattr("davir_ray.cluster.ray_exchange.ROWS_PER_PIECE", 1)
    monkeypatch.setattr("davir_ray.corpus.listing.ROWS_PER_SPLIT", 16)
    corpus, engine = (
        Path(first.run_dir).parents[1] / "corpus",
        {"type": "hash", "num_cpus": 0.5, "replicas": 2},
    )
    again = pipeline.score(recipe(tmp_path, tiny_models, corpus, engine=engine), "test")
    assert scored(again) == scored(first)
    coreset = {name: value for name, value in digest(first).items() if not name.startswith("scored")}
    assert coreset.items() <= digest(again).items()
    assert len(list(Path(again.scored).iterdir())) == 5


def test_a_finished_run_is_not_done_again(first, again):
    none = {"base": 0, "reference": 0}
    assert again() == first.model_copy(update={"measured": none, "reused": first.measured})
    assert sum(first.measured.values()) > 0


def test_choosing_says_what_to_do_without_measurements_and_touches_no_model_with_them(tmp_path, tiny_models):
    write_corpus(tmp_path / "corpus", ROWS, 2)
    asked = recipe(
        tmp_path,
        tiny_models,
        tmp_path / "corpus",
        select=[{"type": "count", "count": 5}],
        score={"name": "rho_sum"},
    )
    with pytest.raises(NotMeasured, match="davir score"):
        pipeline.score(asked, "test", may_measure=False)
    one = pipeline.score(recipe(tmp_path, tiny_models, tmp_path / "corpus"), "test")
    other = pipeline.score(asked, "test", may_measure=False)
    assert other.selected == 5
    assert other.run_id != one.run_id
    assert other.measured == {"base": 0, "reference": 0}
    assert other.reused == one.measured


def test_an_empty_core_set_is_a_file_without_rows(tmp_path, tiny_models):
    shards = [tmp_path / "corpus" / f"{index:02d}.jsonl" for index in range(5)]
    shards[0].parent.mkdir()
    for index, shard in enumerate(shards):
        shard.write_text("".join(json.dumps(row) + "\n" for row in ROWS[index : index + 1]))
    asked = recipe(
        tmp_path,
        tiny_models,
        tmp_path / "corpus",
        corpus={"paths": f"{tmp_path}/corpus/*.jsonl"},
        select=[{"type": "threshold", "min_score": 9.0}],
    )
    record = pipeline.score(asked, "test")
    assert (record.rows, record.selected, record.dropped_by) == (5, 0, {"0:threshold": 5})
    assert record.not_read == {"corpus": {"id": 5}}
    empty = pq.read_table(record.coreset["parquet"])
    assert (empty.num_rows, empty.column_names) == (0, ["id", "question", "answer", *SIDE])
    assert all(next(Path(folder).iterdir()).exists() for folder in record.coreset.values())


def test_a_compacted_store_gives_the_same_bytes(first, copied, tmp_path, tiny_models):
    shutil.rmtree(tmp_path / "runs")
    models = models_in(str(tmp_path / "store"), known_kind)
    assert all(len(model.parts()) >= 3 for model in models)
    for model in models:
        compact(model)
        assert len(model.parts()) == 1
    second = pipeline.score(recipe(tmp_path, tiny_models, copied), "test")
    assert second.measured == {"base": 0, "reference": 0}
    assert second.reused == first.measured == {"base": 120, "reference": 120}
    assert digest(second) == digest(first) != {}


def test_a_start_whose_lease_was_taken_over_leaves_the_tables_alone(
    first, copied, tmp_path, tiny_models, monkeypatch
):
    run = tmp_path / "runs" / first.run_id
    (run / "record.json").unlink()
    measure_models = pipeline.measure_models

    def overtaken(job, may_measure):
        plans = measure_models(job, may_measure)
        (run / "lease" / "00000003.json").write_text("{}")
        return plans

    monkeypatch.setattr(pipeline, "measure_models", overtaken)
    written = {part: part.stat().st_mtime_ns for part in run.glob("*/*.parquet")}
    with pytest.raises(StoreError, match="another start has taken over"):
        pipeline.score(recipe(tmp_path, tiny_models, copied), "test")
    assert {part: part.stat().st_mtime_ns for part in written} == written
    assert written


def test_a_reference_that_is_the_base_is_warned_of(tmp_path, tiny_models):
    write_corpus(tmp_path / "corpus", ROWS[:5], 1)
    for models, warned in ((tiny_models, 0), (tiny_models[:1] * 2, 1)):
        asked = recipe(tmp_path, models, tmp_path / "corpus", corpus={"paths": f"{tmp_path}/corpus/*"})
        (tmp_path / "recipe.json").write_text(asked.model_dump_json(exclude_none=True))
        told = CliRunner().invoke(main, ["validate", str(tmp_path / "recipe.json")])
        assert told.exit_code == 0, told.output
        assert "not read  corpus: id (all 5 rows); the first 5 rows were looked at\n" in told.output
        assert told.output.count("warning   the reference is the model that the base is") == warned


def test_a_run_whose_corpus_has_changed_is_not_resumed_as_another(first, again):
    run_id = first.run_id
    assert again(resumed=run_id).run_id == run_id
    new = Path(first.run_dir).parents[1] / "corpus" / "new.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS[20:22]), new)
    with pytest.raises(RecipeError, match=f"{run_id}: cannot be resumed: its corpus"):
        again(resumed=run_id)
    new.unlink()
