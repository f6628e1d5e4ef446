"""The JSON schema of a recipe takes what the recipe takes, in all its short forms, and refuses what is no setting."""

import json

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from davir_ray.cli import main
from davir_ray.recipe import Recipe, parse_recipe
from davir_ray.recipe.json_schema import recipe_schema
from tests.conftest import ROOT
from tests.documented_commands import FENCED, MARKDOWN
from tests.unit.recipe.test_every_setting import CASES, SMALLEST, tree_of

SCHEMA = Draft202012Validator(recipe_schema())
FILES = sorted((ROOT / "jobs" / "recipes").glob("*.yaml"))
SNIPPETS = [
    (name, block)
    for name in MARKDOWN
    for language, block in FENCED.findall((ROOT / name).read_text())
    if language == "yaml"
]


def test_it_is_a_schema_and_the_verb_prints_it():
    Draft202012Validator.check_schema(SCHEMA.schema)
    assert json.loads(CliRunner().invoke(main, ["schema"]).stdout) == SCHEMA.schema


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_recipes_of_the_project_fit(path):
    SCHEMA.validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(("name", "block"), SNIPPETS, ids=lambda item: item if len(item) < 40 else "")
def test_what_the_documents_show_fits(name, block):
    SCHEMA.validate(SMALLEST | yaml.safe_load(block))


@pytest.mark.parametrize("path", CASES)
def test_every_setting_fits_with_both_its_values(path):
    case = CASES[path]
    for value in (case.value, case.other):
        SCHEMA.validate(tree_of(path, value, case.beside))


SHORT = [
    {"models": {"base": "b", "reference": ["r", {"model_name_or_path": "s"}], "prior": None}},
    {"corpus": {"paths": ["a", "b"]}},
    {"corpus": {"paths": {"a": "x", "b": ["y", "z"]}}},
    {"select": {"type": "count", "count": 3}},
    {"select": []},
    {"reference": {"fit": "cross"}},
    {"reference": None},
    {"engine": {"type": "mine:Engine"}},
    {"train": None},
]
WRONG = [
    {"model": {"base": "b"}},
    {"models": {"reference": "r"}},
    {"models": {"base": 3}},
    {"models": {"base": ["b"]}},
    {"corpus": {"paths": {"a": 3}}},
    {"corpus": {"paths": []}},
    {"corpus": {"paths": "a", "fromat": "alpaca"}},
    {"select": [{"type": "best"}]},
    {"select": {"type": "fraction", "fraction": 1.5}},
    {"select": [{"type": "fraction"}]},
    {"reference": {"fit": "most"}},
    {"tokens": {"max_length": 1}},
    {"train": {"objective": "ppo"}},
    {"references": {"other": {"fit": "whole"}}},
]


@pytest.mark.parametrize("change", SHORT, ids=str)
def test_short_forms_fit_as_the_recipe_takes_them(change):
    parse_recipe(SMALLEST | change, "r")
    SCHEMA.validate(SMALLEST | change)


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_what_the_recipe_refuses_by_itself_does_not_fit(change):
    assert not SCHEMA.is_valid(SMALLEST | change)


def test_an_editor_can_tell_the_meaning_of_every_section_and_of_what_stands_for_one():
    properties = SCHEMA.schema["properties"]
    assert set(properties) == {*Recipe.model_fields, "reference"}
    assert properties["reference"]["description"]
    assert SCHEMA.schema["$defs"]["TokensConfig"]["properties"]["max_length"]["description"]
