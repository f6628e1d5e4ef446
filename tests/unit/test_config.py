from pathlib import Path

import pytest
import yaml

from davir_ray.config import EngineConfig, FractionRule, Recipe, load_recipe, parse_recipe
from davir_ray.errors import RecipeError

ROOT = Path(__file__).resolve().parents[2]
SMALLEST = {"corpus": {"paths": "rows.parquet"}, "models": {"base": "b", "reference": "r"}}


def recipe(**changes) -> Recipe:
    return parse_recipe(SMALLEST | changes, "recipe.yaml")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "jobs" / "recipes").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_recipe_of_the_repository_parses(path):
    load_recipe(path)


def test_a_path_a_list_and_a_mapping_name_files():
    assert recipe(corpus={"paths": "a"}).corpus.paths == {"corpus": ("a",)}
    assert recipe(corpus={"paths": ["a", "b"]}).corpus.paths == {"corpus": ("a", "b")}
    assert recipe(corpus={"paths": {"x": "a", "y": ["b"]}}).corpus.paths == {"x": ("a",), "y": ("b",)}


def test_a_model_is_a_name_or_a_section():
    models = recipe(models={"base": "b", "reference": {"model_name_or_path": "b", "revision": "v2"}}).models
    assert (models.base.model_name_or_path, models.reference.revision) == ("b", "v2")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"corpus": {"paths": []}}, "corpus.paths: Value error, names no files"),
        ({"corpus": {"paths": "a", "shuffle": True}}, "corpus.shuffle: there is no such setting"),
        ({"engine": {"dtype": "float16"}}, "engine.dtype"),
        ({"select": [{"type": "best"}]}, "select.0: Input tag 'best'"),
        ({"select": [{"type": "fraction", "fraction": 0}]}, "select.0.fraction.fraction"),
        ({"select": [{"type": "threshold"}]}, "needs min_score, max_score or both"),
        ({"select": [{"type": "quota"}]}, "needs either fraction or count"),
        ({"tokens": {"max_length": 1}}, "tokens.max_length"),
        (
            {"select": [{"type": "keep_sources", "sources": ["gsm8k"]}]},
            "keep_sources names gsm8k; corpus.paths has corpus",
        ),
        (
            {"select": [{"type": "near_duplicates"}, {"type": "near_duplicates", "num_perm": 64}]},
            "one num_perm and one shingle size",
        ),
    ],
)
def test_a_wrong_recipe_says_where_it_is_wrong(changes, says):
    with pytest.raises(RecipeError) as caught:
        recipe(**changes)
    assert str(caught.value).startswith("recipe.yaml: not a valid recipe")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"), [("a: [", "not valid YAML"), ("- a", "expected a mapping"), ("", "expected a")]
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, says):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match=says):
        load_recipe(tmp_path / "r.yaml")


def test_a_missing_file_is_named():
    with pytest.raises(RecipeError, match=r"none\.yaml: cannot be read"):
        load_recipe("none.yaml")


def write(tmp_path) -> Path:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(SMALLEST))
    return tmp_path / "r.yaml"


def test_settings_are_overridden_in_order(tmp_path):
    changes = (
        "engine.replicas=2",
        "engine.replicas=3",
        "select=[{type: fraction, fraction: 0.5}]",
        "models.base.revision=v1",
    )
    loaded = load_recipe(write(tmp_path), changes)
    assert loaded.engine == EngineConfig(replicas=3)
    assert loaded.select == (FractionRule(fraction=0.5),)
    assert loaded.models.base.model_name_or_path == "b"
    assert loaded.models.base.revision == "v1"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("engine", "expected a.b=value"),
        ("store.x=1", "`store` is not a section"),
        ("score.name=[", "not valid YAML"),
    ],
)
def test_a_wrong_override_is_quoted(tmp_path, setting, says):
    path = write(tmp_path)
    path.write_text(path.read_text() + "store: here\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, (setting,))
    assert says in str(caught.value)
    assert setting in str(caught.value)


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        recipe().store = "elsewhere"
