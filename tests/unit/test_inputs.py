from pathlib import Path

import pytest

from davir_ray.config import parse_recipe
from davir_ray.errors import RecipeError
from davir_ray.inputs import anchored

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


def test_a_submitted_job_does_not_write_into_its_temporary_folder(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(RecipeError, match="store: davir/store would lie in the job's temporary copy"):
        anchored(parse_recipe(TREE, "r"))
    anchored(parse_recipe(TREE | {"store": str(Path("/data/store")), "output": "s3://bucket/runs"}, "r"))
