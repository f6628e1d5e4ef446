import json
from pathlib import Path

import pytest
import yaml

from davir_ray.config import EngineConfig, ModelConfig, ModelsConfig
from davir_ray.coreset.rules import FractionRule
from davir_ray.errors import RecipeError
from davir_ray.recipe import Recipe, load_recipe, parse_recipe

ROOT = Path(__file__).resolve().parents[3]
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


def test_references_are_none_one_or_a_list():
    def references(value):
        return recipe(models={"base": "b", "reference": value}).models.all_of("reference")

    pinned = {"model_name_or_path": "y", "revision": "v2"}
    assert references(None) == ()
    assert references("x") == (ModelConfig(model_name_or_path="x"),)
    assert references(["x", pinned]) == (ModelConfig(model_name_or_path="x"), ModelConfig(**pinned))


def test_a_source_has_its_own_settings_and_those_of_the_corpus_for_the_rest():
    corpus = recipe(
        corpus={
            "paths": {"a": "x", "b": "y"},
            "format": "alpaca",
            "columns": {"output": "gold"},
            "tags": {"role_tag": "who"},
            "sources": {"b": {"format": "messages", "columns": {}}},
        }
    ).corpus
    assert corpus.of("a") == corpus
    assert (corpus.of("b").format, corpus.of("b").columns, corpus.of("b").tags) == (
        "messages",
        {},
        corpus.tags,
    )


def test_settings_of_sources_survive_the_way_through_json():
    sources = {"corpus": {"tags": {"role_tag": "who"}}}
    made = recipe(corpus={"paths": "x", "columns": {"output": "gold"}, "sources": sources})
    again = Recipe.model_validate_json(made.model_dump_json())
    assert again.corpus.of("corpus").columns == {"output": "gold"}
    assert again == made


def test_a_recipe_survives_the_way_through_its_own_json():
    folds = recipe(
        models={"base": "b", "reference": ["x", "y"]}, train={"lora": {"r": 2}, "zero_stage": None}
    )
    assert Recipe.model_validate_json(folds.model_dump_json()) == folds
    made = recipe(models={"base": "b"}, reference={"fit": "cross", "train": {"deepspeed": {"fp16": {}}}})
    assert Recipe.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"corpus": {"paths": []}}, "corpus.paths: names no files"),
        ({"corpus": {"paths": "a", "shuffle": True}}, "corpus.shuffle: there is no such setting"),
        (
            {"corpus": {"paths": {"a": "x"}, "sources": {"b": {"format": "text"}}}},
            "corpus: sources names b; paths has a",
        ),
        ({"corpus": {"paths": "x", "tags": {"user": "Q"}}}, "corpus.tags.user: there is no such setting"),
        ({"engine": {"dtype": "float16"}}, "engine.dtype"),
        (
            {"export": {"formats": ["trl_frozen"]}, "tokens": {"template": "plain"}},
            "export.formats: trl_frozen is for tokens.template: chat",
        ),
        (
            {"export": {"formats": ["trl_frozen"]}, "tokens": {"template": "my.jinja"}},
            "export.formats: trl_frozen is for tokens.template: chat",
        ),
        (
            {"export": {"formats": ["trl_reward"]}},
            "export.formats: trl_reward writes a pair's score as the margin of a reward model, for score.name: margin",
        ),
        ({"select": [{"type": "best"}]}, "select.0.type: found 'best'; expected one of 'fraction', 'count'"),
        (
            {"select": [{"type": "fraction", "fraction": 0}]},
            "select.0.fraction: found 0; expected more than 0",
        ),
        ({"select": [{"type": "threshold"}]}, "needs min_score, max_score or both"),
        ({"select": [{"type": "quota"}]}, "needs either fraction or count"),
        (
            {"select": [{"type": "count", "count": 9}, {"type": "quota", "fraction": 0.1}]},
            "select.1: a quota `by: group` (the default) counts by the column that corpus.group_by names",
        ),
        ({"tokens": {"max_length": 1}}, "tokens.max_length"),
        (
            {"select": [{"type": "keep_sources", "sources": ["gsm8k"]}]},
            "recipe.yaml: select.0: keep_sources names gsm8k; corpus.paths has corpus",
        ),
    ],
)
def test_a_wrong_recipe_says_where_it_is_wrong(changes, says):
    with pytest.raises(RecipeError) as caught:
        recipe(**changes)
    assert str(caught.value).startswith("recipe.yaml: ")
    assert says in str(caught.value)


TRAIN_ERRORS = [
    ({"learning_rates": 1}, "train.learning_rates: there is no such setting"),
    ({"lora": {"rank": 8}}, "train.lora.rank: there is no such setting"),
    ({"corpus": {"paths": "x", "shuffle": True}}, "train.corpus.shuffle: there is no such setting"),
    ({"objective": "ppo"}, "train.objective: "),
    ({"loss_type": "ipo"}, "train.loss_type: has no effect: it is for objective dpo"),
    (
        {"objective": "davir_dpo", "loss_type": "sigmoid_norm"},
        "train.loss_type: has no effect: it is for objective dpo",
    ),
    ({"objective": "dpo", "packing": True}, "train.packing: has no effect: it is for objective sft"),
    ({"offload_param": True}, "train.offload_param: has no effect: it needs zero_stage 3"),
    (
        {"offload_optimizer": True, "zero_stage": 0},
        "train.offload_optimizer: has no effect: it needs zero_stage 1, 2 or 3",
    ),
    (
        {"offload_optimizer": True, "zero_stage": None},
        "train.offload_optimizer: has no effect: it needs zero_stage 1, 2 or 3",
    ),
    ({"zero_stage": 4}, "train.zero_stage: "),
    ({"beta": 0}, "train.beta: "),
    ({"report_to": ["comet"]}, "train.report_to.0: "),
    (
        {"lora": {"layers_to_transform": [0]}},
        "train.lora: layers_to_transform needs target_modules to name the modules of a layer",
    ),
]


@pytest.mark.parametrize(("settings", "says"), TRAIN_ERRORS)
def test_a_wrong_training_says_where_it_is_wrong(settings, says):
    with pytest.raises(RecipeError) as caught:
        recipe(train=settings)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "dpo", "loss_type": "ipo"},
        {"packing": True},
        {"offload_param": True, "offload_optimizer": True, "zero_stage": 3},
        {"offload_optimizer": True, "zero_stage": 1},
        {"lora": {"layers_to_transform": [0], "target_modules": ["q_proj"]}},
        {"report_to": ["wandb", "mlflow", "tensorboard"]},
    ],
)
def test_trainings_that_fit_parse(settings):
    assert recipe(train=settings).train is not None


def test_only_preferences_train_on_pairs():
    objectives = ("sft", "dpo", "davir_dpo")
    assert [recipe(train={"objective": one}).train.is_preference for one in objectives] == [False, True, True]


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ({"fold": 3}, "reference.fold: there is no such setting"),
        ({"fit": "half"}, "reference.fit: "),
        ({"fit": "cross", "folds": 1}, "reference.folds: "),
        ({"fit": "sample", "fraction": 0}, "reference.fraction: "),
        (
            {"train": {"objective": "dpo"}},
            "a reference is made with objective sft; of pairs only by fit target",
        ),
        (
            {"train": {"corpus": {"paths": "x"}}},
            "a reference is made on the recipe's corpus, or on its target",
        ),
    ],
)
def test_a_wrong_reference_section_says_where_it_is_wrong(reference, says):
    with pytest.raises(RecipeError) as caught:
        recipe(models={"base": "b"}, reference=reference)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_reference_is_named_or_made_and_not_both():
    assert recipe(models={"base": "b"}, reference={}).reference.fit == "whole"
    for named in ("r", ["r", "s"]):
        with pytest.raises(RecipeError, match=r"models\.reference names a model and `reference` makes one"):
            recipe(models={"base": "b", "reference": named}, reference={})


@pytest.mark.parametrize(
    ("text", "says"),
    [("a: [", "not valid YAML"), ("- a", "expected a mapping"), ("", "the file is empty; expected a")],
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


@pytest.mark.parametrize(
    ("score", "sections", "made"),
    [
        ("rose", {"warmup": {"fraction": 0.2}}, {"warmup": ("a", "b")}),
        (
            "tov",
            {"references": {"target": {"fit": "target", "start": "warmup"}}},
            {"target": "t", "prior": "p"},
        ),
        ("davir", {"reference": {"fit": "target"}}, {"reference": "r"}),
    ],
)
def test_what_a_run_with_a_target_writes_down_is_read_again(score, sections, made):
    asked = recipe(models={"base": "b"}, target={"paths": "t"}, score={"name": score}, **sections)
    models = ModelsConfig.model_validate(
        {"base": "b"}
        | {name: value if isinstance(value, str) else list(value) for name, value in made.items()}
    )
    run = asked.model_copy(update={"models": models, "references": {}})
    written = json.loads(run.model_dump_json())
    assert parse_recipe(written, "recipe.json", as_written=False) == run
