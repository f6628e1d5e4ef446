"""What documents show in YAML is a recipe, or a part of one; what they show in Python runs."""

import json

import numpy as np
import pytest
import yaml

from davir_ray.errors import RecipeError
from davir_ray.recipe import parse_recipe
from davir_ray.scores.score import Measured, Score
from tests.documented_commands import FENCED, MARKDOWN, ROOT
from tests.measured import losses_table

BLOCKS = [
    (name, language, block)
    for name in MARKDOWN
    for language, block in FENCED.findall((ROOT / name).read_text())
]
LANGUAGES = {"", "text", "yaml", "python", "json", "mermaid"}
RECIPES = [(name, block) for name, language, block in BLOCKS if language == "yaml"]
PYTHON = [(name, block) for name, language, block in BLOCKS if language == "python"]
SCORES = [(name, block) for name, block in PYTHON if "Score(" in block]
RUN_ELSEWHERE = {"docs/python.md", "docs/records.md", "docs/results.md"}
"""By tests/ray/test_python_pages.py and tests/real/test_trl_export.py."""
SMALLEST = {"corpus": {"paths": "rows.parquet", "group_by": "group"}, "models": {"base": "b"}}


def name_of(item):
    return item if isinstance(item, str) and len(item) < 40 else ""


def test_blocks_have_known_languages():
    assert {language for _, language, _ in BLOCKS} <= LANGUAGES


DATA_SETS = {
    "alpaca_en": {"file_name": "alpaca.json"},
    "dpo_en": {
        "file_name": "dpo.json",
        "ranking": True,
        "columns": {"prompt": "q", "chosen": "a", "rejected": "b"},
    },
    "kto_en": {"file_name": "kto.json", "columns": {"prompt": "q", "response": "a", "kto_tag": "label"}},
}
"""What the data/dataset_info.json of a document describes: it is read with the recipe."""


@pytest.mark.parametrize(("name", "block"), RECIPES, ids=name_of)
def test_yaml_of_a_document_is_a_recipe(tmp_path, monkeypatch, name, block):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(DATA_SETS))
    monkeypatch.chdir(tmp_path)
    tree = yaml.safe_load(block)
    parse_recipe(SMALLEST | tree, name)
    if "corpus" in tree and "models" in tree:
        parse_recipe(tree, name)


def test_there_are_recipes_and_one_that_is_wrong_is_noticed():
    assert {"README.md", "docs/recipes.md", "docs/training.md", "docs/nightly.md"} <= {
        name for name, _ in RECIPES
    }
    with pytest.raises(RecipeError, match="nothing"):
        parse_recipe(SMALLEST | {"nightly": {"nothing": 1}}, "x")


@pytest.mark.parametrize(("name", "block"), SCORES, ids=name_of)
def test_a_score_of_a_document_scores(name, block):
    names: dict = {}
    exec(block, names)
    (score,) = (value for value in names.values() if isinstance(value, Score))
    losses = {need: losses_table([2.0 + index, 6.0 + index]) for index, need in enumerate(score.needs)}
    tokens = {need.view: np.array([2, 3]) for need in score.needs}
    measured = Measured(losses, tokens, np.array([b"a" * 16, b"b" * 16]))
    assert np.isfinite(score.compute(measured, parse_recipe(SMALLEST, name).score)).all()


def test_all_python_of_the_documents_is_run_somewhere():
    assert {name for name, _ in SCORES} == {"CONTRIBUTING.md", "docs/reference/scores.md"}
    assert {name for name, block in PYTHON if (name, block) not in SCORES} == RUN_ELSEWHERE
