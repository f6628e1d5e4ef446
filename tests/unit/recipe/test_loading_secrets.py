"""Secrets outside of URIs have no place in a recipe: it is written down, shown and shared."""

import pytest

from davir_ray.errors import RecipeError
from davir_ray.recipe import parse_recipe

TOKEN = "hf_" + "s3cretABCD" * 4


def tree(**engine_args):
    return {
        "corpus": {"paths": "rows.parquet"},
        "models": {"base": "b", "reference": "r"},
        "engine": {"type": "vllm", "engine_args": engine_args},
    }


@pytest.mark.parametrize("name", ["hf_token", "api_key", "password", "aws_secret_key", "s3_access_key"])
def test_a_setting_that_is_a_secret_by_its_name_is_refused(name):
    with pytest.raises(RecipeError, match=rf"engine\.engine_args\.{name}: is a secret by its name") as caught:
        parse_recipe(tree(**{name: "s3cret"}), "recipe")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("args", [{"code_revision": TOKEN}, {"hf_overrides": {"x": [f"Bearer {TOKEN}"]}}])
def test_a_token_is_refused_by_its_form_wherever_it_stands(args):
    with pytest.raises(RecipeError, match="holds credentials") as caught:
        parse_recipe(tree(**args), "recipe")
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("value", [12345678, ["s3cret"], "s3cret"])
def test_a_secret_is_refused_whatever_it_looks_like_and_not_told(value):
    override = f"engine.engine_args.password={value}"
    for given in (override, {"engine.engine_args": {"password": value}}):
        overrides = [given] if isinstance(given, str) else given
        with pytest.raises(RecipeError, match="is a secret by its name") as caught:
            parse_recipe(tree(x=1), "recipe", overrides)
        assert str(value) not in str(caught.value)
        assert "s3cret" not in str(caught.value)


def test_settings_that_only_sound_like_secrets_stay():
    args = {"max_num_batched_tokens": 4096, "tokenizer_mode": "auto", "eos_token": "</s>", "hf_token": True}
    assert parse_recipe(tree(**args), "recipe").engine.engine_args == args
    sources = {"secret": "rows.parquet", "password": "others.parquet"}
    assert len(parse_recipe(tree(x=1) | {"corpus": {"paths": sources}}, "recipe").corpus.paths) == 2
