from pathlib import Path

import pytest

from davir_ray.config import parse_recipe
from davir_ray.errors import RecipeError
from davir_ray.inputs import anchored, check_inputs

TREE = {
    "corpus": {"paths": ["rows/*.parquet", "s3://bucket/x"]},
    "models": {"base": "base", "reference": "org/name"},
}


def test_local_paths_become_absolute_and_other_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    recipe = anchored(
        parse_recipe(TREE | {"output": "s3://bucket/runs", "tokens": {"template": "t.jinja"}}, "r")
    )
    assert recipe.corpus.paths == {"corpus": (f"{tmp_path}/rows/*.parquet", "s3://bucket/x")}
    assert recipe.models.base.model_name_or_path == f"{tmp_path}/base"
    assert recipe.models.reference.model_name_or_path == "org/name"
    assert (recipe.store, recipe.output) == (f"{tmp_path}/davir/store", "s3://bucket/runs")
    assert recipe.tokens.template == f"{tmp_path}/t.jinja"
    assert anchored(recipe) == recipe


def test_paths_of_trainings_become_absolute_and_other_settings_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = {
        "corpus": {"paths": {"a": ["rows/a.parquet", "s3://bucket/x"]}, "limit": 3},
        "eval_corpus": {"paths": "held_out.jsonl"},
        "deepspeed": "zero.json",
        "seed": 7,
    }
    of_reference = {"eval_corpus": {"paths": "held_out.jsonl"}, "deepspeed": "s3://bucket/zero.json"}
    tree = TREE | {
        "models": {"base": "org/name"},
        "train": train,
        "reference": {"train": of_reference, "folds": 3},
    }
    recipe = anchored(parse_recipe(tree, "r"))
    assert recipe.train.corpus.paths == {"a": (f"{tmp_path}/rows/a.parquet", "s3://bucket/x")}
    assert recipe.train.corpus.limit == 3
    assert recipe.train.eval_corpus.paths == {"corpus": (f"{tmp_path}/held_out.jsonl",)}
    assert (recipe.train.deepspeed, recipe.train.seed) == (f"{tmp_path}/zero.json", 7)
    assert recipe.reference.train.eval_corpus.paths == {"corpus": (f"{tmp_path}/held_out.jsonl",)}
    assert (recipe.reference.train.deepspeed, recipe.reference.folds) == ("s3://bucket/zero.json", 3)
    assert anchored(recipe) == recipe


def test_a_recipe_without_trainings_keeps_none_and_a_deepspeed_mapping_stays():
    recipe = anchored(parse_recipe(TREE, "r"))
    assert recipe.train is None
    assert recipe.reference is None
    mapping = {"zero_optimization": {"stage": 1}}
    recipe = anchored(parse_recipe(TREE | {"train": {"deepspeed": mapping}}, "r"))
    assert recipe.train.deepspeed == mapping
    assert (recipe.train.corpus, recipe.train.eval_corpus) == (None, None)


def test_each_of_several_references_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two", "over"):
        (tmp_path / name).mkdir()
    with_adapter = {"model_name_or_path": "two", "adapter_name_or_path": "over"}
    tree = TREE | {"models": {"base": "org/name", "reference": ["one", with_adapter, "org/other"]}}
    references = anchored(parse_recipe(tree, "r")).models.references
    assert [one.model_name_or_path for one in references] == [
        f"{tmp_path}/one",
        f"{tmp_path}/two",
        "org/other",
    ]
    assert [one.adapter_name_or_path for one in references] == [None, f"{tmp_path}/over", None]


def test_a_submitted_job_does_not_write_into_its_temporary_folder(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(RecipeError, match="store: davir/store would lie in the job's temporary copy"):
        anchored(parse_recipe(TREE, "r"))
    anchored(parse_recipe(TREE | {"store": str(Path("/data/store")), "output": "s3://bucket/runs"}, "r"))


def test_frozen_log_probabilities_of_a_corpus_without_pairs_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "t"}\n')
    tree = {
        "corpus": {"paths": str(tmp_path)},
        "score": {"name": "perplexity"},
        "export": {"formats": ["trl_frozen"]},
    }
    with pytest.raises(
        RecipeError, match="trl_frozen is for preference pairs, and the corpus holds none; say trl"
    ):
        check_inputs(parse_recipe(TREE | tree, "r"))
