from pathlib import Path

import pytest
import yaml

from davir_ray.config import EngineConfig, FractionRule, ModelConfig, Recipe, load_recipe, parse_recipe
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


def test_references_are_none_one_or_a_list():
    def references(value):
        return recipe(models={"base": "b", "reference": value}).models.references

    pinned = {"model_name_or_path": "y", "revision": "v2"}
    assert references(None) == ()
    assert references("x") == (ModelConfig(model_name_or_path="x"),)
    assert references(["x", pinned]) == (ModelConfig(model_name_or_path="x"), ModelConfig(**pinned))


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
        ({"engine": {"dtype": "float16"}}, "engine.dtype"),
        ({"select": [{"type": "best"}]}, "select.0.type: found 'best'; expected one of 'fraction', 'count'"),
        (
            {"select": [{"type": "fraction", "fraction": 0}]},
            "select.0.fraction: found 0; expected more than 0",
        ),
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
    assert str(caught.value).startswith("recipe.yaml: ")
    assert says in str(caught.value)


TRAIN_ERRORS = [
    ({"learning_rates": 1}, "train.learning_rates: there is no such setting"),
    ({"lora": {"rank": 8}}, "train.lora.rank: there is no such setting"),
    ({"corpus": {"paths": "x", "shuffle": True}}, "train.corpus.shuffle: there is no such setting"),
    ({"objective": "ppo"}, "train.objective: "),
    ({"loss_type": "ipo"}, "loss_type ipo is a loss of objective dpo"),
    (
        {"objective": "davir_dpo", "loss_type": "sigmoid_norm"},
        "loss_type sigmoid_norm is a loss of objective dpo",
    ),
    ({"objective": "dpo", "packing": True}, "packing is for objective sft"),
    ({"offload_param": True}, "offload_param needs zero_stage 3"),
    ({"offload_optimizer": True, "zero_stage": 0}, "offload_optimizer needs zero_stage 1, 2 or 3"),
    ({"offload_optimizer": True, "zero_stage": None}, "offload_optimizer needs zero_stage 1, 2 or 3"),
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
        ({"train": {"objective": "dpo"}}, "a reference is made with objective sft, on the recipe's corpus"),
        (
            {"train": {"corpus": {"paths": "x"}}},
            "a reference is made with objective sft, on the recipe's corpus",
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


BASE = "corpus: {paths: rows.parquet}\nmodels: {base: b, reference: r}\n"
LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{index}: &a{index} [{', '.join([f'*a{index - 1}'] * 10)}]\n" for index in range(1, 12)
)
MERGED_LAUGHS = "a0: &a0 {x: 1}\n" + "".join(
    f"a{index}: &a{index} {{<<: [{', '.join([f'*a{index - 1}'] * 10)}]}}\n" for index in range(1, 12)
)
HOSTILE_FILES = [
    (
        BASE + "engine: {engine_args: {x: " + "[" * 1000 + "]" * 1000 + "}}",
        "line 3: is nested more than 32 deep",
    ),
    ("".join(" " * index + "a:\n" for index in range(1000)), "is nested more than 32 deep"),
    (
        BASE + "engine: {replicas: " + "9" * 100_000 + "}",
        "line 3: engine.replicas: found a number of 100,000 digits",
    ),
    (
        BASE + "engine: {replicas: 0x" + "f" * 100_000 + "}",
        "engine.replicas: found a number of 100,002 digits",
    ),
    (
        BASE + "score: {seed: " + "9" * 30 + "}",
        "score.seed: found '" + "9" * 30 + "'; expected a finite number",
    ),
    (BASE + "score: {min_loss: .nan}", "score.min_loss: found '.nan'; expected a finite number"),
    (BASE + "engine: {stall_seconds: inf}", "engine.stall_seconds: found 'inf'; expected a finite number"),
    (BASE + "score: {seed: !!int x}", "score.seed: found 'x', which is not what its tag says"),
    (LAUGHS + BASE, "has more than 100,000 values, aliases counted each time"),
    (MERGED_LAUGHS + BASE, "has more than 100,000 values, aliases counted each time"),
    ("a: &a [*a]\n" + BASE, "is nested more than 32 deep"),
    ("a: &a {<<: *a}\n" + BASE, "is nested more than 32 deep"),
    ("a: {<<: 1}\n" + BASE, "line 1: merges (<<) what is no mapping"),
    (BASE + "store: a\0b", r"line 3: has the character '\x00'"),
    (BASE + 'store: "a\\0b"', r"line 3: store: 'a\x00b' is no valid text"),
    (BASE + 'store: "\\ud800"', r"line 3: store: '\ud800' is no valid text"),
    (
        "corpus:\n\tpaths: x\n",
        "line 2: is not valid YAML: found character '\\t' that cannot start any token; indent with",
    ),
    (BASE + "select: !!set {a, b}", "line 3: has the tag 'tag:yaml.org,2002:set'; tags are not read"),
    (BASE + "store: !!python/object/apply:os.getcwd []", "tags are not read"),
    (BASE + "store: !!binary aGk=", "line 3: store: has the tag"),
    (BASE + "? [a, b]\n: c", "line 3: has a key that is not text"),
    (BASE + "1: x", "line 3: 1: there is no such setting; expected corpus, engine, "),
    (BASE + "store: a\noutput: b\nstore: c", "line 5: `store` is there twice, the first time on line 3"),
    ("corpus:\n  paths: a\n  paths: b", "line 3: `corpus.paths` is there twice, the first time on line 2"),
    (BASE + "---\n" + BASE, "is not valid YAML"),
    ("# nothing", "the file is empty; expected a mapping of sections"),
    ("hello", "found 'hello'; expected a mapping of sections"),
    (BASE + "x" * 2**20, "is larger than 1,048,576 bytes"),
    (BASE + "corpus.paths: x", "line 3: corpus.paths: there is no such setting"),
]


@pytest.mark.parametrize(("text", "says"), HOSTILE_FILES, ids=range(len(HOSTILE_FILES)))
def test_whatever_is_wrong_with_a_file_is_one_line(tmp_path, text, says):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "r.yaml")
    (line,) = caught.value.lines
    assert line.startswith(f"{tmp_path}/r.yaml")
    assert says in line
    assert len(line) < 600


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"a: 1\nb: \xe9\n", "line 2: is not UTF-8 text"), (b"\xff\xfea\0", "line 1: is not UTF-8 text")],
)
def test_bytes_that_are_no_text_are_refused(tmp_path, data, says):
    (tmp_path / "r.yaml").write_bytes(data)
    with pytest.raises(RecipeError, match=says):
        load_recipe(tmp_path / "r.yaml")


def test_a_folder_and_an_endless_file_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="is a folder with no run in it"):
        load_recipe(tmp_path)
    with pytest.raises(RecipeError, match="/dev/zero: is larger than"):
        load_recipe("/dev/zero")


def test_what_yaml_takes_for_dates_truth_and_numbers_is_text_where_text_is_meant(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "\ufeffcorpus: {paths: {2024: a, on: b}}\nmodels: {base: {model_name_or_path: b, revision: 2024-01-01}}"
    )
    loaded = load_recipe(path)
    assert loaded.corpus.paths == {"2024": ("a",), "on": ("b",)}
    assert loaded.models.base.revision == "2024-01-01"


def test_aliases_and_merges_are_read(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "corpus: &c {paths: a, limit: 3}\nmodels: {base: b}\ntrain: {corpus: {<<: *c, limit: 5}, eval_corpus: *c}\n"
        "reference: {train: {eval_corpus: {<<: [{limit: 7}, *c]}}}\n"
    )
    loaded = load_recipe(path)
    assert loaded.train.eval_corpus == loaded.corpus
    assert (loaded.train.corpus.paths, loaded.train.corpus.limit) == (loaded.corpus.paths, 5)
    assert loaded.reference.train.eval_corpus.limit == 7


SENTENCES = [
    ("tokenz: {}", "line 3: tokenz: there is no such setting; did you mean `tokens`?"),
    ("score: {nam: x}", "line 3: score.nam: there is no such setting; did you mean `name`?"),
    ("max_length: 5", "line 3: max_length: there is no such setting; did you mean `tokens.max_length`?"),
    (
        "train: {lora: {rank: 1}}",
        "train.lora.rank: there is no such setting; expected layers_to_transform, lora_alpha",
    ),
    (
        "select:\n  - {type: fraktion, fraction: 1}",
        "line 4: select.0.type: found 'fraktion'; expected one of 'fraction',",
    ),
    ("select: {type: fraktion}", "did you mean `fraction`?"),
    ("select: {fraction: 0.1}", "select.type: is missing; write a rule as {type: fraction, fraction: 0.06}"),
    ("select: {type: fraction, fraction: 2}", "line 3: select.fraction: found 2; expected 1 or less"),
    ("select: [{type: count, cuont: 2}]", "select.0.cuont: there is no such setting; did you mean `count`?"),
    (
        "select: fraction",
        "select: found 'fraction'; expected a list, such as [{type: fraction, fraction: 0.06}]",
    ),
    ("select: [5]", "select.0: found 5; expected a mapping"),
    ("export: {formats: trl}", "export.formats: found 'trl'; expected a list, such as [trl]"),
    (
        "export: {formats: [json]}",
        "found 'json'; expected 'parquet', 'jsonl', 'messages', 'trl' or 'ids'; did you mean `jsonl`?",
    ),
    ("engine: {replicas: many}", "line 3: engine.replicas: found 'many'; expected a whole number"),
    ("engine: {replicas: 1.5}", "engine.replicas: found 1.5; expected a whole number"),
    ("train: {packing: perhaps}", "train.packing: found 'perhaps'; expected true or false"),
    ("train: {deepspeed: [5]}", "train.deepspeed: found a list of 1; expected a mapping or text"),
    ("train: {lora: {target_modules: 5}}", "train.lora.target_modules: found 5; expected text or a list"),
    ("engine: 5", "engine: found 5; expected a mapping"),
    ("store: [a]", "store: found a list of 1; expected text"),
]


@pytest.mark.parametrize(("text", "says"), SENTENCES)
def test_a_sentence_says_what_was_found_and_what_was_expected(tmp_path, text, says):
    (tmp_path / "r.yaml").write_text(BASE + text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "r.yaml")
    assert says in str(caught.value)
    assert "tuple" not in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/r.yaml line ")


def test_all_that_is_wrong_with_one_of_several_references_is_told_at_its_lines(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("corpus: {paths: a}\nmodels:\n  base: b\n  reference:\n    - x\n    - {revisoin: 1}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.lines == (
        f"{path} line 6: models.reference.1.model_name_or_path: is missing",
        f"{path} line 6: models.reference.1.revisoin: there is no such setting; did you mean `revision`?",
    )


def test_a_rule_is_a_list_of_one():
    assert recipe(select={"type": "fraction", "fraction": 0.5}).select == (FractionRule(fraction=0.5),)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("engine.dtype=int8", "--set engine.dtype=int8: engine.dtype: found 'int8'; expected 'auto'"),
        (
            "engin.dtype=auto",
            "--set engin.dtype=auto: engin: there is no such setting; did you mean `engine`?",
        ),
        ("select={type: count}", "--set select={type: count}: select.count: is missing"),
        ("engine.replicas=" + "9" * 5000, "(5,016 characters): found a number of 5,000 digits"),
        ("engine.engine_args.x=" + "[" * 5000, "is nested more than 32 deep"),
        ("a" + ".a" * 5000 + "=1", "is nested more than 32 deep"),
        ("store={a: 1, a: 2}", "--set store={a: 1, a: 2}: `a` is there twice"),
    ],
)
def test_what_an_override_spoils_is_not_blamed_on_the_file(tmp_path, setting, says):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path), ("score.seed=1", setting))
    (line,) = caught.value.lines
    assert line.startswith(f"--set {setting[:50]}")
    assert says in line
    assert "r.yaml" not in line
    assert len(line) < 600


def test_an_override_does_not_change_what_it_is_given():
    tree = {"corpus": {"paths": "a"}, "models": {"base": "b"}}
    assert parse_recipe(tree, "r", ["models.base.revision=v", "corpus.limit=2"]).corpus.limit == 2
    assert tree == {"corpus": {"paths": "a"}, "models": {"base": "b"}}


def test_plain_data_nested_too_deeply_is_refused():
    deep: dict = {}
    for _ in range(100):
        deep = {"a": deep}
    with pytest.raises(RecipeError, match="is nested more than 32 deep"):
        recipe(engine={"engine_args": deep})


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        recipe().store = "elsewhere"
