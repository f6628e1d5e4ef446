import json
from pathlib import Path

import pytest

from davir_ray import storage
from davir_ray.config import TrainConfig
from davir_ray.errors import StoreError
from davir_ray.recipe import parse_recipe
from davir_ray.runs.record import RunRecord
from davir_ray.runs.run import Run, load_run_or_recipe, run_id_of, training_id_of
from davir_ray.train.checks import with_deepspeed
from tests.records import run_record

TREE = {"corpus": {"paths": "rows.parquet"}, "models": {"base": "b", "reference": "r"}}


def recipe(tmp_path, **changes):
    return parse_recipe(TREE | {"output": str(tmp_path), "store": str(tmp_path)} | changes, "r")


def test_the_run_id_changes_with_what_decides_the_result_and_with_nothing_else(tmp_path):
    one = run_id_of(recipe(tmp_path), "name", "corpus", "model")
    assert one.startswith("name-")
    assert one == run_id_of(
        recipe(tmp_path / "x", engine={"replicas": 9, "num_cpus": 2, "stall_seconds": 60}),
        "name",
        "corpus",
        "model",
    )
    others = [
        run_id_of(recipe(tmp_path, score={"name": "rho_sum"}), "name", "corpus", "model"),
        run_id_of(recipe(tmp_path, engine={"dtype": "bfloat16"}), "name", "corpus", "model"),
        run_id_of(recipe(tmp_path), "name", "corpus", "other model"),
        run_id_of(recipe(tmp_path), "name", "other corpus", "model"),
    ]
    assert len({one, *others}) == 5


def test_what_is_trained_and_when_a_night_is_bad_leave_the_id_of_a_run_alone(tmp_path):
    models = {"base": "b"}
    others = (
        {"train": {"seed": 3}},
        {"reference": {"fit": "cross"}},
        {"nightly": {"max_coreset_change": 0.1}},
    )
    ids = {
        run_id_of(recipe(tmp_path, models=models, **changes), "name", "corpus") for changes in ({}, *others)
    }
    assert len(ids) == 1


def trained(*content, **settings):
    return training_id_of(with_deepspeed(TrainConfig(**settings)), "name", *content)


def test_the_id_of_a_training_changes_with_its_settings_and_with_its_content():
    assert trained("rows", "base").startswith("name-")
    assert trained("rows", "base") == trained("rows", "base", objective="sft", seed=0)
    settings = [
        {"seed": 1},
        {"objective": "dpo"},
        {"objective": "davir_dpo"},
        {"learning_rate": 1e-4},
        {"num_train_epochs": 2},
        {"max_steps": 4},
        {"per_device_train_batch_size": 4},
        {"num_workers": 2},
        {"dtype": "bfloat16"},
        {"zero_stage": 3},
        {"lora": {"r": 8}},
        {"lora": {"r": 8, "merge": True}},
        {"eval_corpus": {"paths": "x"}},
    ]
    ids = [trained("rows", "base", **some) for some in settings]
    ids += [trained("rows", "base"), trained("rows", "other base"), trained("other rows", "base")]
    assert len(set(ids)) == len(settings) + 3


def test_how_a_training_runs_leaves_its_id_alone():
    settings = [
        {"max_failures": 0},
        {"report_to": ("wandb",)},
        {"num_cpus_per_worker": 2.5},
        {"save_total_limit": 9},
    ]
    assert {trained("rows", **some) for some in settings} == {trained("rows")}


def test_a_deepspeed_file_counts_by_its_content_and_not_by_its_path(tmp_path):
    texts = {"one": '{"zero_optimization": {"stage": 1}}', "other": '{"zero_optimization": {"stage": 2}}'}
    for name, text in texts.items():
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "copy.json").write_text(texts["one"])
    one, copy, other = (
        trained(deepspeed=str(tmp_path / f"{name}.json")) for name in ("one", "copy", "other")
    )
    assert one == copy
    assert len({one, other, trained()}) == 3


def test_a_run_is_unfinished_until_its_record_is_written(tmp_path):
    run = Run.begin(recipe(tmp_path), "name-1")
    assert run.record(RunRecord) is None
    storage.write_atomic(storage.join(run.folder, "work", "x"), b"1")
    run.finish(run_record())
    assert Run.begin(recipe(tmp_path), "name-1").record(RunRecord).rows == 12
    assert not storage.exists(storage.join(run.folder, "work"))


def test_events_go_on_where_a_stopped_run_left_them(tmp_path):
    Run.begin(recipe(tmp_path), "name-1").event("prepare", splits=1)
    Run.begin(recipe(tmp_path), "name-1").event("rank", rows=1)
    lines = storage.read_bytes(str(tmp_path / "name-1" / "events.jsonl")).decode().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["prepare", "rank"]


def test_a_run_folder_stands_for_its_recipe(tmp_path):
    run = Run.begin(recipe(tmp_path), "my-name-0a1b")
    loaded, name = load_run_or_recipe(run.folder, ["score.name=rho_sum"])
    assert name == "my-name"
    assert loaded == recipe(tmp_path, score={"name": "rho_sum"})


def finished_run(tmp_path) -> Run:
    run = Run.begin(recipe(tmp_path), "name-1")
    storage.write_atomic(storage.join(run.folder, "scored", "0.parquet"), b"scores")
    storage.write_atomic(storage.join(run.folder, "coreset", "0.parquet"), b"rows")
    run.finish(run_record())
    return run


@pytest.mark.parametrize("name", ["scored/0.parquet", "coreset/0.parquet", "record.json"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_run_whose_results_or_record_are_gone_or_cut_is_not_finished(tmp_path, name, damage, capsys):
    run = finished_run(tmp_path)
    assert run.record(RunRecord).rows == 12
    path = Path(storage.join(run.folder, name))
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    assert run.record(RunRecord) is None
    assert run.reopen(RunRecord) is None
    said = capsys.readouterr().err
    assert ("the run is not finished any more" in said and str(path) in said) or not path.exists()
    assert not Path(storage.join(run.folder, "record.json")).exists()


@pytest.mark.parametrize("given", ["name-1", "./name-1/", "latest", "name-1/../latest"])
def test_a_run_is_the_same_by_whatever_path_its_folder_is_named(tmp_path, monkeypatch, given):
    run = finished_run(tmp_path)
    (tmp_path / "latest").symlink_to("name-1")
    monkeypatch.chdir(tmp_path)
    for found in (Run.from_folder(given), Run.existing(given)):
        assert (found.run_id, found.folder) == ("name-1", run.folder)
        assert found.record(RunRecord).rows == 12
    assert load_run_or_recipe(given, ())[1] == "name"


def test_within_its_folder_a_run_is_called_by_its_name(tmp_path, monkeypatch):
    run = finished_run(tmp_path)
    monkeypatch.chdir(run.folder)
    assert load_run_or_recipe(".", ())[1] == "name"
    assert Run.existing(".").record(RunRecord).rows == 12
    assert Run.from_folder("memory://runs/name-1/") == Run("name-1", "memory://runs/name-1")


def test_a_recipe_behind_a_link_is_called_by_the_name_of_the_link(tmp_path):
    (tmp_path / "..data").write_text(json.dumps(TREE))
    (tmp_path / "mine.yaml").symlink_to("..data")
    assert load_run_or_recipe(str(tmp_path / "mine.yaml"), ())[1] == "mine"


def test_results_that_are_listed_are_not_asked_for_by_name(tmp_path, monkeypatch):
    run, asked = finished_run(tmp_path), []
    size_of = storage.size_of
    monkeypatch.setattr(storage, "size_of", lambda uri: asked.append(uri) or size_of(uri))
    assert run.record(RunRecord).rows == 12
    assert asked == []
    monkeypatch.setattr(storage, "files_below", lambda _: [])  # a listing that lags
    assert run.record(RunRecord).rows == 12
    assert sorted(asked) == [f"{run.folder}/{name}/0.parquet" for name in ("coreset", "scored")]


def test_a_run_whose_recipe_is_damaged_says_who_writes_it_again(tmp_path):
    run = Run.begin(recipe(tmp_path), "name-1")
    run.event("prepare", splits=1)
    for text in ("{", "[]", "{}", ""):
        Path(storage.join(run.folder, "recipe.json")).write_text(text)
        with pytest.raises(StoreError, match=r"recipe.json.*`davir score` with the recipe file"):
            load_run_or_recipe(run.folder, ())
    Path(storage.join(run.folder, "recipe.json")).unlink()
    with pytest.raises(StoreError, match=r"recipe.json: is gone; `davir score` with the recipe file"):
        Run.existing(run.folder)
