"""What is wrong with a recipe: where it stands, what was found, and what was expected, in one line."""

import pytest

from davir_ray.coreset.rules import FractionRule
from davir_ray.errors import RecipeError
from davir_ray.recipe import load_recipe, parse_recipe

SMALLEST = {"corpus": {"paths": "rows.parquet"}, "models": {"base": "b"}}
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
        "found 'json'; expected 'parquet', 'jsonl', 'messages', 'trl', 'trl_frozen', 'trl_reward', "
        "'llama_factory', 'ids' or 'id_scores'; did you mean `jsonl`?",
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


def test_settings_that_do_not_go_together_are_told_at_the_line_of_one(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(BASE + "engine: {}\nselect:\n  - {type: keep_sources, sources: [x]}\nreference: {}\n")
    with pytest.raises(
        RecipeError, match=r"line 5: select\.0: keep_sources names x; corpus\.paths has corpus$"
    ):
        load_recipe(path, ["models.reference=null"])


def test_a_rule_is_a_list_of_one():
    assert parse_recipe(SMALLEST | {"select": {"type": "fraction", "fraction": 0.5}}, "r").select == (
        FractionRule(fraction=0.5),
    )


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
    path = tmp_path / "r.yaml"
    path.write_text(BASE)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ("score.seed=1", setting))
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
        parse_recipe(SMALLEST | {"engine": {"engine_args": deep}}, "r")
