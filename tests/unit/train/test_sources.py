import shlex

import pytest

from davir_ray import storage
from davir_ray.errors import TrainingError
from davir_ray.recipe import parse_recipe
from davir_ray.runs.run import Run
from davir_ray.train import sources
from tests.records import run_record

TREE = {
    "corpus": {"paths": "rows.jsonl"},
    "models": {"base": "base", "reference": "reference"},
    "train": {"zero_stage": None},
}


def asked(tmp_path, *settings: str):
    return parse_recipe(TREE | {"output": str(tmp_path)}, "r", settings)


def refused(monkeypatch, recipe) -> str:
    monkeypatch.setattr(sources, "check_inputs", lambda *_: None)
    monkeypatch.setattr(sources, "engine_for", lambda inputs: None)
    monkeypatch.setattr(sources, "name_run", lambda *_: "n-0000000000ff")
    with pytest.raises(TrainingError) as raised:
        sources.core_set_source(recipe, "n", ())
    return str(raised.value)


def finish(tmp_path, recipe) -> None:
    run = Run.in_output(str(tmp_path), "n-000000000001")
    storage.write_atomic(storage.join(run.folder, "recipe.json"), recipe.model_dump_json().encode())
    run.finish(run_record(run_id=run.run_id))


def test_without_a_finished_run_the_verbs_that_make_one_are_named(tmp_path, monkeypatch):
    told = refused(monkeypatch, asked(tmp_path))
    assert told == "run n-0000000000ff has no core-set yet; `davir score` makes it, `davir run` does all"


@pytest.mark.parametrize(
    ("settings", "written"),
    [
        (["corpus.limit=24"], {"corpus.limit=24"}),
        (["corpus.limit=24", "engine.replicas=3", "train.seed=4", "store=elsewhere"], {"corpus.limit=24"}),
        (["select=[{type: count, count: 5}]"], {'select=[{"type": "count", "count": 5}]'}),
        (["corpus.columns={query: q}"], {'corpus.columns={"query": "q"}'}),
        (
            ["engine.dtype=bfloat16", "tokens.max_length=64"],
            {"tokens.max_length=64", 'engine.dtype="bfloat16"'},
        ),
    ],
)
def test_a_finished_run_is_named_with_what_to_write_to_mean_it(tmp_path, monkeypatch, settings, written):
    finish(tmp_path, asked(tmp_path, *settings))
    told = refused(monkeypatch, asked(tmp_path))
    _, found, command = told.partition(". Finished is n-000000000001: to train on its core-set, add ")
    assert found
    words = shlex.split(command)
    assert (set(words[::2]), set(words[1::2])) == ({"--set"}, written)
    theirs, ours = (
        sources._settings(one.model_dump(mode="json"))
        for one in (asked(tmp_path, *settings), asked(tmp_path, *words[1::2]))
    )
    assert theirs == ours, "what is written means that run"


def test_a_finished_run_of_the_same_recipe_was_of_other_rows_or_models(tmp_path, monkeypatch):
    finish(tmp_path, asked(tmp_path))
    told = refused(monkeypatch, asked(tmp_path))
    assert told.endswith(
        "Finished is n-000000000001, whose corpus (files, sizes or times), models or engine were others"
    )
