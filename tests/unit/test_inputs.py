import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from davir_ray.cli import main
from davir_ray.errors import CorpusError, EngineError, ModelNotFound, RecipeError
from davir_ray.inputs import anchored, check_inputs, inputs
from davir_ray.recipe import parse_recipe
from davir_ray.train.sources import reference_sources
from tests.unit.models.test_resolve import save_adapter

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
        "reference": {"train": of_reference, "fit": "cross", "folds": 3},
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
    references = anchored(parse_recipe(tree, "r")).models.all_of("reference")
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


def test_pairs_and_conversations_for_llama_factory_are_not_put_together(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "t"}\n')
    (tmp_path / "b.jsonl").write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    tree = {
        "corpus": {"paths": {name: f"{tmp_path}/{name}.jsonl" for name in "ab"}},
        "score": {"name": "perplexity"},
        "export": {"formats": ["llama_factory"], "one_schema": True},
    }
    with pytest.raises(
        RecipeError, match="llama_factory keeps pairs and conversations in files of their own"
    ):
        check_inputs(parse_recipe(TREE | tree, "r"))


def test_models_by_their_identity_need_the_tokenizer_of_the_base_alone(tmp_path, tiny_models):
    (tmp_path / "base").mkdir()
    for file in Path(tiny_models[0]).iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, tmp_path / "base")
    known = [{"model_name_or_path": name, "identity": name[0] * 32} for name in ("base", "cannot be found")]
    known[0]["model_name_or_path"] = str(tmp_path / "base")
    inputs = check_inputs(asked(tmp_path, tuple(known)))
    assert [one.identity for one in inputs.all_models] == ["b" * 32, "c" * 32]
    assert (inputs.base.model_path, inputs.base.model_type, inputs.warnings) == ("", "", ())
    shown = CliRunner().invoke(main, ["validate", str(tmp_path / "recipe.json")])
    assert f"reference {'c' * 32} (known by its identity alone)" in shown.output
    known[0]["model_name_or_path"] = str(tmp_path / "none")
    with pytest.raises(ModelNotFound, match="none: there is no such folder"):
        check_inputs(asked(tmp_path, tuple(known)))


ROWS = [{"question": f"Say {i}.", "answer": f"{i}."} for i in range(3)]
PAIR = {"prompt": "Say A.", "chosen": "A", "rejected": "B"}


def asked(folder: Path, models: tuple[str, str], rows: list[dict] = ROWS, **changes):
    """A recipe on a few rows, in a file too."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text)
    tree = {
        "corpus": {"paths": str(folder / "rows.jsonl")},
        "models": {"base": models[0], "reference": models[1]},
        "store": str(folder / "store"),
        "output": str(folder / "runs"),
    }
    tree |= changes
    (folder / "recipe.json").write_text(json.dumps(tree))
    return parse_recipe(tree, "r")


def refused_by_each_verb(folder: Path, code: int) -> str:
    """Check that every verb refuses a recipe in the same words, before it starts Ray; return them."""
    told = [CliRunner().invoke(main, [verb, str(folder / "recipe.json")]) for verb in VERBS]
    assert [one.exit_code for one in told] == [code] * len(VERBS)
    assert len({one.output for one in told}) == 1
    return told[0].output


VERBS = ("validate", "score", "plan", "select", "nightly")


def test_a_score_of_pairs_is_refused_on_other_rows(tmp_path, tiny_models):
    asked(tmp_path, tiny_models, score={"name": "margin"})
    told = refused_by_each_verb(tmp_path, RecipeError.exit_code)
    assert told.startswith(
        "error: score.name: margin is defined for preference pairs alone, and the corpus holds"
    )
    assert check_inputs(asked(tmp_path, tiny_models, [PAIR], score={"name": "margin"})).score.pairs_only


def test_no_reference_is_made_for_a_score_that_the_corpus_cannot_have(tmp_path, tiny_models):
    changes = {"score": {"name": "margin"}, "reference": {"train": {"zero_stage": None}}}
    recipe = asked(tmp_path, (tiny_models[0], None), **changes)
    with pytest.raises(RecipeError, match="margin is defined for preference pairs alone"):
        reference_sources(recipe, recipe.reference)
    told = CliRunner().invoke(main, ["validate", str(tmp_path / "recipe.json")])
    assert (told.exit_code, "preference pairs alone" in told.output) == (RecipeError.exit_code, True)


def test_sequences_longer_than_the_models_positions_are_refused(tmp_path, tiny_models):
    asked(tmp_path, tiny_models, tokens={"max_length": 2049})
    told = refused_by_each_verb(tmp_path, RecipeError.exit_code)
    assert f"tokens.max_length: 2049 is above the 2048 positions of {tiny_models[0]}" in told
    assert "set it to 2048 or less" in told
    check_inputs(asked(tmp_path, tiny_models, tokens={"max_length": 2048}))


def test_a_template_that_refuses_every_row_is_told_with_the_commonest_reason(tmp_path, tiny_models):
    refusing = (
        "{% for m in messages %}{% if 'Say' in m['content'] %}{{ raise_exception('no Say here') }}{% endif %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    )
    (tmp_path / "t.jinja").write_text(refusing)
    asked(tmp_path, tiny_models, tokens={"template": str(tmp_path / "t.jinja")})
    told = refused_by_each_verb(tmp_path, CorpusError.exit_code)
    assert told.startswith("error: none of the 3 rows that were looked at can be scored; 3 of them with ")
    assert "template_error: the chat template refused the row: TemplateError: no Say here" in told
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "recipe.json")])
    assert (shown.exit_code, shown.output.count("no Say here")) == (0, 3)
    one_good = [*ROWS, {"question": "Tell A.", "answer": "A"}]
    check_inputs(asked(tmp_path, tiny_models, one_good, tokens={"template": str(tmp_path / "t.jinja")}))


def test_rows_that_are_all_too_long_are_refused(tmp_path, tiny_models):
    recipe = asked(tmp_path, tiny_models, tokens={"max_length": 8, "truncation": "drop"})
    with pytest.raises(CorpusError, match=r"3 of them with too_long: \d+ tokens; tokens\.max_length is 8"):
        check_inputs(recipe)


def test_a_source_that_cannot_be_scored_is_a_warning_while_another_can(tmp_path, tiny_models):
    (tmp_path / "good.jsonl").write_text('{"question": "Tell A.", "answer": "A"}\n')
    bad = [{"question": "word " * 200, "answer": "A"}] * 300
    two = {"a": str(tmp_path / "rows.jsonl"), "b": str(tmp_path / "good.jsonl")}
    tokens = {"max_length": 64, "truncation": "drop"}
    (warning,) = check_inputs(
        asked(tmp_path, tiny_models, bad, corpus={"paths": two}, tokens=tokens)
    ).warnings
    assert warning.startswith(
        "corpus.paths.a: none of the 256 rows that were looked at can be scored; 256 of them with too_long: "
    )
    one = {"paths": [*two.values()]}
    assert check_inputs(asked(tmp_path, tiny_models, bad, corpus=one, tokens=tokens)).warnings == ()


@pytest.mark.parametrize(("order", "warned"), [("highest", 1), ("lowest", 0)])
def test_a_score_whose_lowest_values_are_the_best_is_warned_of_upside_down(
    tmp_path, tiny_models, order, warned
):
    found = check_inputs(asked(tmp_path, tiny_models, score={"name": "rsr", "order": order})).warnings
    assert [("lowest values of rsr" in one) for one in found] == [True] * warned


def test_the_sample_of_a_source_opens_few_files(tmp_path, tiny_models, monkeypatch):
    asked(tmp_path, tiny_models)
    for number in range(40):
        (tmp_path / f"part-{number:02}.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    recipe = asked(tmp_path, tiny_models, corpus={"paths": str(tmp_path / "part-*.jsonl")})
    read, examples = [], inputs.examples
    monkeypatch.setattr(inputs, "examples", lambda split, *more: read.append(split) or examples(split, *more))
    check_inputs(recipe)
    assert [Path(split.path).stem for split in read] == [f"part-{number:02}" for number in range(0, 40, 5)]


def test_rows_that_parse_beyond_the_sample_are_found(tmp_path, tiny_models):
    rows = [{"question": None, "answer": "A"}] * 300 + ROWS
    assert check_inputs(asked(tmp_path, tiny_models, rows)).warnings == ()


def test_a_reference_that_is_gone_is_known_by_what_was_measured_under_it(tmp_path, tiny_models):
    gone = Path(shutil.copytree(tiny_models[1], tmp_path / "gone"))
    recipe = asked(tmp_path, (tiny_models[0], str(gone)))
    (before,) = check_inputs(recipe).references
    shutil.rmtree(gone)
    with pytest.raises(ModelNotFound, match="gone: there is no such folder"):
        check_inputs(recipe)
    with pytest.raises(ModelNotFound):
        check_inputs(recipe, measured_under=lambda: {})
    found = check_inputs(recipe, measured_under=lambda: {"reference": (before.identity,)})
    assert [model.identity for model in found.references] == [before.identity]
    assert "gone: there is no such folder; what was measured under it is used" in found.warnings[0]


def test_validate_tells_of_an_adapter_that_vllm_cannot_measure(tmp_path, tiny_models):
    adapter = save_adapter(tmp_path / "adapter", width=32, rank=1024)
    over = {"model_name_or_path": tiny_models[0], "adapter_name_or_path": adapter}
    asked(tmp_path, (tiny_models[0], over), engine={"type": "vllm"})
    told = CliRunner().invoke(main, ["validate", str(tmp_path / "recipe.json")])
    assert (told.exit_code, "its rank 1024 is above vLLM's" in told.output) == (EngineError.exit_code, True)
