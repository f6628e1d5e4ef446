import json
import os
import pickle
import subprocess
import sys

import pytest
from click.testing import CliRunner

from davir_ray import errors
from davir_ray.cli import main
from davir_ray.nightly.nights import Busy
from tests.records import holder, night_record, run_record


def test_help_and_version_load_neither_ray_nor_torch():
    code = (
        "import sys, davir_ray\n"
        "from davir_ray.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'ray', 'torch', 'transformers', 'vllm', 'pyarrow', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "score" in done.stdout


@pytest.mark.parametrize("verb", ["scores", "formats"])
def test_what_there_is_can_be_listed(verb):
    from davir_ray.corpus.formats import FORMATS
    from davir_ray.scores import SCORES

    result = CliRunner().invoke(main, [verb])
    assert result.exit_code == 0
    for name in {"scores": SCORES, "formats": FORMATS}[verb]:
        assert f"\n{name}\n" in f"\n{result.output}"


def test_an_error_becomes_a_message_and_its_exit_code(tmp_path):
    result = CliRunner().invoke(main, ["score", str(tmp_path / "none.yaml")])
    assert result.exit_code == errors.RecipeError.exit_code
    assert "none.yaml: cannot be read" in result.output
    assert "Traceback" not in result.output


def test_every_error_has_the_exit_code_that_the_help_states():
    text = " ".join((sys.modules["davir_ray.cli.verbs"].__doc__ or "").split())
    words = {
        2: "recipe",
        3: "corpus",
        4: "model",
        5: "engine",
        6: "store",
        7: "training",
        8: "nightly limits",
        9: "environment",
    }
    for code, word in words.items():
        assert f"{code} {word}" in text
    codes = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and hasattr(error, "exit_code")
    }
    assert codes == {1, *words}


@pytest.mark.parametrize(
    "words", [["compare", "{}", "--score", "loss"], ["compare", "{}", "{}"], ["select", "{}"], ["plan", "{}"]]
)
def test_a_training_is_told_as_one_where_a_run_is_expected(words, tmp_path):
    (tmp_path / "training.json").write_text("{}")
    told = CliRunner().invoke(main, [word.format(tmp_path) for word in words])
    assert told.output == f"error: {tmp_path}: is a training; the command that started it goes on with it\n"
    assert told.exit_code == 2


def test_a_recipe_is_not_compared(tmp_path):
    (tmp_path / "r.yaml").write_text("{corpus: {paths: rows.jsonl}, models: {base: base}}")
    told = CliRunner().invoke(main, ["compare", str(tmp_path / "r.yaml"), "--score", "loss"])
    assert told.output.startswith(f"error: {tmp_path}/r.yaml: holds no run")
    assert told.exit_code == 2


@pytest.fixture
def nothing_chosen(tmp_path, monkeypatch):
    """A recipe whose scoring chooses nothing, and the record that it ends with."""
    from davir_ray import pipeline
    from davir_ray.train import steps as training

    record = run_record(ranked=0, selected=0, status={"no_score": 12})
    monkeypatch.setattr(pipeline, "score", lambda *args, **kwargs: record)
    monkeypatch.setattr(training, "check_trainings", lambda recipe: None)
    monkeypatch.setattr(training, "train", lambda *args: pytest.fail("there is nothing to train on"))
    (tmp_path / "recipe.yaml").write_text("{corpus: {paths: rows.jsonl}, models: {base: base}, train: {}}")
    return str(tmp_path / "recipe.yaml"), record


@pytest.mark.parametrize("verb", ["score", "select", "run"])
def test_a_run_that_chose_nothing_is_told_whole_and_ends_with_exit_code_3(verb, nothing_chosen):
    recipe, record = nothing_chosen
    result = CliRunner().invoke(main, [verb, recipe, "--json"])
    assert result.exit_code == errors.CorpusError.exit_code == 3
    assert "selected  0 rows, 30 response tokens" in result.stdout
    printed = json.loads(result.stdout.splitlines()[-1])
    assert {name: printed[name] for name in record.tree()} == record.tree()
    assert {name: printed[name] for name in printed.keys() - record.tree().keys()} == (
        {"reference": None, "train": None} if verb == "run" else {}
    )
    assert result.stderr == (
        "error: nothing was chosen: none of the 12 rows has a score (no_score: 12); "
        "runs/r-1/unscored has the reason of each\n"
    )


def test_a_night_that_chose_nothing_ends_like_a_run_whatever_its_limits(nothing_chosen, monkeypatch):
    from davir_ray.nightly import night

    recipe, record = nothing_chosen
    ended = night_record(**dict(record), drift=None, past_limits=("too many failed",))
    monkeypatch.setattr(night, "run_night", lambda *args: ended)
    result = CliRunner().invoke(main, ["nightly", recipe])
    assert result.exit_code == 3
    assert "limit     too many failed" in result.stdout
    assert "nothing was chosen" in result.stderr


def test_a_night_that_another_start_works_on_is_no_night_without_a_choice(nothing_chosen, monkeypatch):
    from davir_ray.nightly import night

    monkeypatch.setattr(night, "run_night", lambda *args: Busy(busy=holder()))
    assert CliRunner().invoke(main, ["nightly", nothing_chosen[0]]).exit_code == 0


def test_names_from_a_closed_list_are_guessed():
    from davir_ray.config import CorpusConfig, EngineConfig
    from davir_ray.corpus.detection import check_renames
    from davir_ray.logprobs.choice import choose_engine
    from davir_ray.scores import resolve_score

    with pytest.raises(errors.RecipeError, match=r"did you mean `rho_mean`\?"):
        resolve_score("rho-mean")
    with pytest.raises(errors.CorpusError, match=r"did you mean `sharegpt`\?"):
        check_renames(CorpusConfig(paths="a", format="ShareGPT"), "corpus")
    with pytest.raises(errors.EngineError, match=r"did you mean `transformers`\?"):
        choose_engine(EngineConfig(type="transformer"), gpus=0, model_type="llama")


def test_an_error_of_several_lines_is_printed_as_such_also_from_another_process():
    error = pickle.loads(pickle.dumps(errors.UnreadableFile("two files", "  a\nb", "  c")))
    assert (error.lines, str(error)) == (("two files", "  a\nb", "  c"), "two files\n  a\nb\n  c")


def test_letters_that_a_terminal_does_not_have_are_spelt(tmp_path):
    place = tmp_path / "\u6570"
    (place / "measurements").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "davir_ray.cli", "store", "verify", str(place)],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(b"/\\u6570\n")
