"""What is safe to print and to keep of text that is not ours."""

import json
import os
from pathlib import Path
from unicodedata import category

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from davir_ray.cli import main
from davir_ray.errors import CorpusError, RecipeError, RowError
from davir_ray.foreign_text import (
    Shown,
    brief,
    holds_credentials,
    is_text,
    printable,
    shown,
    without_credentials,
)
from davir_ray.logprobs.kinds import LOSS
from davir_ray.progress import say
from davir_ray.recipe import parse_recipe
from davir_ray.runs.run import Run
from davir_ray.storage.filesystems import reaching
from davir_ray.store.measurements import MeasurementStore

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202eb\u2066\r\nerror: forged"
SPELT = r"a\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202eb\u2066\r\nerror: forged"
ROW = {"prompt": "2+2?", "completion": "4"}


def is_safe(text: str) -> bool:
    return all(one.isprintable() or one == "\n" or category(one) == "Zs" for one in text)


def test_what_does_not_print_is_spelt_out():
    assert printable(HOSTILE) == SPELT
    assert printable("\u2028\u200b\udcff\ue000\ufeff") == r"\u2028\u200b\udcff\ue000\ufeff"


@pytest.mark.parametrize(
    "text", ["d\u00e9j\u00e0 vu", "\u6570\u636e\u3000\u96c6", "\U0001f600", "a\u00a0b", r"C:\new"]
)
def test_letters_and_spaces_of_all_scripts_stay(text):
    assert printable(text) == text


def test_nothing_that_moves_the_cursor_is_left_of_all_characters():
    text = printable("".join(map(chr, [*range(0x20000), *range(0xE0000, 0xE0200)])))
    assert is_safe(text)
    assert "\n" not in text


def test_our_own_colours_survive_and_foreign_ones_do_not():
    assert shown("\x1b[2m") == r"\x1b[2m"
    assert shown(Shown("\x1b[2mx\x1b[0m")) == "\x1b[2mx\x1b[0m"


def test_a_line_of_progress_is_safe(capsys):
    say(f"skipped {HOSTILE} of s3://K:s3cret@b")
    assert capsys.readouterr().err == f"skipped {SPELT} of s3://***@b\n"


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("s3://KEY:s3cret@bucket/a", "s3://***@bucket/a"),
        ("s3://KEY:s3/cr+et@bucket/a", "s3://***@bucket/a"),
        ("s3://s3cret@bucket", "s3://***@bucket"),
        ("ftp://u:s3@cret@host/a", "ftp://***@host/a"),
        ("https://s3cret@github.com/a", "https://***@github.com/a"),
        ("zip://a::s3://K:s3cret@b", "zip://a::s3://***@b"),
        ("http://u:s3cret@h:80/x?a=1&sig=s3cret", "http://***@h:80/x?a=1&sig=***"),
        (
            "https://h/x?X-Amz-Algorithm=A&X-Amz-Credential=s3cret&X-Amz-Signature=s3cret#f",
            "https://h/x?X-Amz-Algorithm=A&X-Amz-Credential=***&X-Amz-Signature=***#f",
        ),
        (
            "abfs://c@acct.dfs.core.windows.net/p?sv=1&sig=s3cret",
            "abfs://c@acct.dfs.core.windows.net/p?sv=1&sig=***",
        ),
        ("gs://b/o?access_token=s3cret&x=1", "gs://b/o?access_token=***&x=1"),
        ("az://c/x;AccountKey=s3cret;b", "az://c/x;AccountKey=***;b"),
        (
            "cannot log in with hf_" + "s3cretABCD" * 4 + ", it says",
            "cannot log in with ***, it says",
        ),
        (
            "no route to http://u:s3cret@h: (url: /a?Signature=s3cret)",
            "no route to http://***@h: (url: /a?Signature=***",
        ),
    ],
)
def test_secrets_of_a_uri_are_hidden(text, safe):
    assert without_credentials(text).startswith(safe)
    assert "s3cret" not in without_credentials(text)
    assert without_credentials(safe) == safe
    assert holds_credentials(text)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/a:b@c/*.parquet",
        "abfss://container@account.dfs.core.windows.net/a",
        "hf://datasets/u/n@main/a.parquet",
        "http://host:8080/a@b",
        "sftp://me@host/a",
        "s3://bucket/?.jsonl",
        "s3://bucket/a?versionId=x",
        "file:///data/a:b@c",
        "simplecache::s3://bucket/a@b",
        "/data/user:name@host/a?token=x",
        "me@example.org",
        "models/hf_finetuned_on_all_of_our_own_rows_v2",
        "task-sk-1234",
        "data/sk-wikipedia-2024-cleaned-deduplicated.jsonl",
    ],
)
def test_what_is_no_secret_stays(uri):
    assert not holds_credentials(uri)


def test_errors_and_reasons_hold_no_secret():
    error = CorpusError("s3://K:s3cret@b: gone", "  and http://h?sig=s3cret")
    assert error.lines == ("s3://***@b: gone", "  and http://h?sig=***")
    assert str(error) == "\n".join(error.lines)
    assert RowError("bad_format", "s3://K:s3cret@b").reason == "s3://***@b"
    with pytest.raises(CorpusError) as caught, reaching("s3://bucket/a", CorpusError):
        raise OSError("cannot connect to http://u:s3cret@endpoint")
    assert (
        str(caught.value)
        == "s3://bucket/a: the storage fails: OSError: cannot connect to http://***@endpoint"
    )


def test_a_value_is_described_in_a_few_words():
    assert brief("x" * 1000) == f"'{'x' * 100}... (1,000 characters)'"
    assert brief(10**5000) == "a number of 16,610 bits"
    assert [brief(one) for one in (None, True, 1.5, [1], {"a": 1})] == [
        "nothing", "true", "1.5", "a list of 1", "a mapping of 1"
    ]  # fmt: skip


def test_names_that_are_no_text():
    assert not is_text("a\0")
    assert not is_text(os.fsdecode(b"\xff"))
    assert is_text(HOSTILE)


# Every verb, with hostile names


@pytest.fixture
def places(tmp_path, monkeypatch, tiny_models) -> Path:
    """A folder in which everything that a user can name has a hostile name."""
    monkeypatch.chdir(tmp_path)
    Path(HOSTILE).mkdir()
    for name, model in zip(("base", "reference"), tiny_models, strict=True):
        os.symlink(model, f"{HOSTILE}{name}")
    table = pa.Table.from_pylist(
        [ROW | {HOSTILE: HOSTILE}, {"prompt": HOSTILE, "completion": ""} | {HOSTILE: "g"}]
    )
    pq.write_table(table, f"{HOSTILE}/{HOSTILE}.parquet")
    Path("broken").mkdir()
    Path(f"broken/{HOSTILE}.parquet").write_bytes(b"PAR1")
    return tmp_path


def tree(**changes) -> dict:
    return {
        "corpus": {"paths": {HOSTILE: f"{HOSTILE}/*"}, "group_by": HOSTILE},
        "models": {"base": f"{HOSTILE}base", "reference": f"{HOSTILE}reference"},
        "engine": {"type": "hash"},
        "store": f"{HOSTILE}store",
        "output": f"{HOSTILE}output",
    } | changes


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(main, arguments, color=True)
    told = result.stdout + result.stderr
    assert is_safe(told), told
    assert not any(line.startswith("error: forged") for line in told.splitlines())
    assert result.exit_code in range(9)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def write(recipe: dict, name: str = f"{HOSTILE}.yaml") -> str:
    Path(name).write_text(json.dumps(recipe))
    return name


@pytest.mark.parametrize("verb", ["validate", "inspect"])
def test_verbs_that_look_at_a_hostile_corpus(places, verb):
    result = call(verb, write(tree()))
    assert result.exit_code == 0
    assert f"{SPELT}/{SPELT}.parquet row 0" in result.stdout


ROLES = ("base", "reference")
WRONG = {
    "no file": tree(corpus={"paths": f"{HOSTILE}none"}),
    "no column": tree(corpus={"paths": f"{HOSTILE}/*", "columns": {"prompt": HOSTILE + "x"}}),
    "unknown column": tree(corpus={"paths": f"{HOSTILE}/*", "columns": {HOSTILE: "x"}}),
    "no group": tree(corpus={"paths": f"{HOSTILE}/*", "group_by": HOSTILE + "x"}),
    "format": tree(corpus={"paths": f"{HOSTILE}/*", "format": HOSTILE}),
    "broken file": tree(corpus={"paths": f"broken/{HOSTILE}*"}),
    "two sources": tree(corpus={"paths": {HOSTILE: f"{HOSTILE}/*", HOSTILE + "x": f"{HOSTILE}/*"}}),
    "model": tree(models={"base": HOSTILE, "reference": HOSTILE}),
    "adapter": tree(
        models={
            role: {"model_name_or_path": f"{HOSTILE}base", "adapter_name_or_path": HOSTILE} for role in ROLES
        }
    ),
    "hub id": tree(
        models={role: {"model_name_or_path": HOSTILE + "x", "revision": HOSTILE} for role in ROLES}
    ),
    "template": tree(tokens={"template": HOSTILE}),
    "score": tree(score={"name": HOSTILE}),
    "score module": tree(score={"name": f"{HOSTILE}:{HOSTILE}"}),
    "setting": tree() | {HOSTILE: 1},
    "rule": tree(select=[{"type": HOSTILE}]),
    "source": tree(select=[{"type": "keep_sources", "sources": [HOSTILE + "x"]}]),
    "storage": tree(store=f"no{HOSTILE}://x"),
    "deepspeed": tree(train={"deepspeed": HOSTILE}),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told_safely(places, what):
    result = call("validate", write(WRONG[what]))
    assert result.exit_code in (2, 3, 4, 6)
    assert r"a\x1b]0;owned" in result.stderr


VERBS = [
    "score",
    "plan",
    "nightly",
    "select",
    "resume",
    "status",
    "reference",
    "train",
    "run",
    "validate",
    "inspect",
]
STORE = [["store", verb] for verb in ("info", "verify", "compact")] + [
    ["store", "prune", "--older-than", "1d"]
]


@pytest.mark.parametrize("verb", [*([verb] for verb in VERBS), *STORE], ids=" ".join)
def test_every_verb_quotes_its_arguments_safely(tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    assert SPELT in call(*verb, HOSTILE).stderr
    assert call(*verb, HOSTILE, f"--{HOSTILE}").exit_code == 2
    assert call(*verb, HOSTILE, HOSTILE).exit_code == 2
    assert "not UTF-8" in call(*verb, os.fsdecode(b"\xff")).stderr


@pytest.mark.parametrize(
    "verb", ["score", "plan", "nightly", "select", "reference", "train", "run", "validate", "inspect"]
)
def test_overrides_are_quoted_safely(tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    path = write(tree(), "r.yaml")
    for setting in (HOSTILE, f"{HOSTILE}=1", f"engine.dtype={HOSTILE}", f"corpus.paths.{HOSTILE}.x=1"):
        result = call(verb, path, "--set", setting)
        assert result.exit_code == 2
        assert r"\x1b]0;owned" in result.stderr


def test_runs_and_stores_of_hostile_names_are_told_safely(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run.begin(parse_recipe(tree(), "r"), f"{HOSTILE}-0123456789ab")
    counts = {"sequences": 1, "tokens": 1, "tokens_left": 1, "retried_sequences": 0}
    run.event("measure", role="base", anew=True, store=HOSTILE, **counts)
    MeasurementStore(f"{HOSTILE}store/measurements/{HOSTILE}", LOSS).describe(
        {"model": HOSTILE, "path": HOSTILE, "adapter": None, "numerics": {HOSTILE: HOSTILE}}
    )
    for place in (run.folder, f"{HOSTILE}output", write(tree())):
        result = call("status", place, "--json")
        assert f"{SPELT}-0123456789ab" in result.stdout
        assert result.stdout.splitlines()[-1].isascii()
        assert json.loads(result.stdout.splitlines()[-1])["runs"][0]["run_id"] == run.run_id
        assert SPELT in call("store", "info", f"{HOSTILE}store", "--json").stdout
    for verb in (["verify"], ["compact"], ["prune", "--older-than", "1d", "--keep", HOSTILE]):
        assert call("store", *verb, f"{HOSTILE}store").exit_code == 0
    kept = [path for path in tmp_path.rglob("*.json*") if path.is_file()]
    assert {path.name for path in kept} == {"recipe.json", "events.jsonl", "model.json"}
    assert all(path.read_bytes().isascii() for path in kept)


def test_words_of_the_command_line_are_quoted_safely(tmp_path):
    assert call(HOSTILE).exit_code == 2
    assert call("plan", "r.yaml", "--limit", HOSTILE).exit_code == 2
    assert call("store", HOSTILE).exit_code == 2
    assert call("store", "prune", "s", "--older-than", HOSTILE).exit_code == 2


def test_a_file_whose_name_is_no_text_is_refused(places):
    Path(os.fsdecode(b"broken/\xff.jsonl")).write_text(json.dumps(ROW))
    result = call("validate", write(tree(corpus={"paths": "broken/*.jsonl"})))
    assert result.exit_code == 3
    assert r"broken/\udcff.jsonl: its name is not UTF-8" in result.stderr


# Secrets

SECRET = "s3://KEY:s3cret@bucket/x"
SIGNED = "https://host/x.parquet?X-Amz-Signature=s3cret"
PLACES = [
    "corpus.paths", "corpus.paths.a", "corpus.format", "corpus.columns.prompt", "tokens.template",
    "tokens.chat_template_kwargs.x", "models.base", "models.base.adapter_name_or_path", "models.base.revision",
    "models.reference", "engine.type", "engine.engine_args.x", "score.name", "train.corpus.paths",
    "train.eval_corpus.paths", "train.deepspeed", "reference.train.eval_corpus.paths", "store", "output",
    "select", "no.such.setting",
]  # fmt: skip


@pytest.mark.parametrize("uri", [SECRET, SIGNED, f"[{SECRET}]", f"{{{SECRET!r}: 1}}"])
@pytest.mark.parametrize("setting", PLACES)
def test_a_secret_in_a_recipe_is_refused_and_not_shown(tmp_path, monkeypatch, setting, uri):
    monkeypatch.chdir(tmp_path)
    recipe = tree(
        corpus={"paths": {"b": "x"}},
        engine={},
        train={},
        reference={},
        models={"base": {"model_name_or_path": "b"}},
    )
    path = write(recipe, "r.yaml")
    result = call("score", path, "--set", f"{setting}={uri}")
    assert result.exit_code == 2
    assert "s3cret" not in result.stdout + result.stderr
    assert "***" in result.stderr
    assert "holds credentials; keep secrets out of the recipe" in result.stderr
    assert os.listdir() == ["r.yaml"]


def test_a_secret_in_a_file_is_named_by_its_line(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(f"corpus:\n  paths:\n    - rows.parquet\n    - {SIGNED}\nmodels: {{base: b}}\n")
    result = call("score", str(path))
    assert "r.yaml line 4: corpus.paths.1: https://host/x.parquet?X-Amz-Signature=*** holds" in result.stderr
    with pytest.raises(RecipeError) as caught:
        parse_recipe(tree(store=SECRET), "r")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("verb", [*([verb] for verb in VERBS), *STORE], ids=" ".join)
def test_a_secret_in_an_argument_is_refused_and_not_shown(verb):
    result = call(*verb, SECRET)
    assert result.exit_code == 2
    assert "s3cret" not in result.stdout + result.stderr
    assert "AWS_*" in result.stderr
