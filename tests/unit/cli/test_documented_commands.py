"""Every command of the documents is known: its verbs, options, files and settings exist.

tests/ray/test_job_submission.py runs what needs no training as it stands, in a shell without an activated environment.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib

import click
import pytest
import yaml

from davir_ray.cli import main
from davir_ray.recipe import load_recipe
from tests.documented_commands import ROOT, Command, documented, of_block

COMMANDS = documented()


def check_davir(words):
    """Parse a command as click does."""
    verb, rest = verb_of(words)
    if rest != ["--help"]:
        verb.make_context("davir", rest)


def check_named(words):
    """Prose may leave out arguments: the verb is there, and has the options."""
    verb, rest = verb_of(words)
    known = {name for option in verb.params for name in option.opts} | {"--help"}
    assert {word for word in rest if word.startswith("--")} <= known


def verb_of(words):
    """Return the verb of a command, and the words behind it."""
    verb = main
    while isinstance(verb, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        verb = verb.get_command(click.Context(verb), name)
        assert verb is not None, f"there is no verb {name}"
    return verb, words


def check_make(words):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(words) <= set(targets)


def check_pip(words):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.fullmatch(r"(?:davir-ray|\.)\[([\w,-]+)\]", words[1])
    assert words[0] == "install"
    assert named is not None
    assert set(named[1].split(",")) <= set(extras)


def check_pytest(words):
    markers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    assert words[words.index("-m") + 1] in [marker.split(":")[0] for marker in markers]
    assert (ROOT / words[-1]).is_file()


def check_script(words):
    assert (ROOT / words[0]).is_file()


def check_ci(words):
    assert words == []
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def check_kubectl(words):
    """There is no Kubernetes to try it on: its verb is looked at, and the file that it applies."""
    tried = {("create", "serviceaccount"), ("port-forward", "service/davir-head-svc")}
    assert tuple(words[:2]) in tried or (words[:2] == ["apply", "-f"] and (ROOT / words[2]).is_file())


def check_export(words):
    """The shells of tests/ray/test_job_submission.py begin with these."""
    assert {word.split("=")[0] for word in words} <= {"PATH", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}


def check_cron(words):
    assert words[:3] == ["*", "*", "*"]
    assert words[3:6] == ["cd", "/srv/davir_ray", "&&"]
    check_ray(words[words.index(".venv/bin/ray") + 1 :])


def check_ray(words):
    """Ray's own options are checked where Ray is: tests/ray. What a job starts is here."""
    if "--" in words:
        python, job, recipe = words[words.index("--") + 1 :]
        assert python == "python"
        assert (ROOT / job).is_file()
        assert recipe == "RECIPE.yaml" or (ROOT / recipe).is_file()


CHECKS = {
    "davir": check_davir,
    "make": check_make,
    "pip": check_pip,
    "pytest": check_pytest,
    ".venv/bin/python": check_script,
    ".ci/run": check_ci,
    "kubectl": check_kubectl,
    "export": check_export,
    "30": lambda words: check_cron(words[1:]),
    "ray": check_ray,
}


def check(command):
    words = shlex.split(command.text)
    words = words[: words.index(">")] if ">" in words else words
    while re.match(r"\w+=", words[0]):
        words = words[1:]
    named = {"davir": check_named} if command.is_named else {}
    (CHECKS | named)[words[0]](words[1:])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: f"{one.file}: {one.text[:60]}")
def test_a_command_of_the_documents_exists(command: Command):
    check(command)


@pytest.mark.parametrize(
    "text",
    [
        "davir nights recipe.yaml",
        "davir score recipe.yaml --rows 5",
        "davir inspect recipe.yaml --rows none",
        "davir store shrink davir/store",
        "davir store prune davir/store --older-than always",
        "davir status",
        "make quick",
        "pip install 'davir-ray[cuda]'",
        "pytest -m nightly tests/ray/test_nothing.py",
        "kubectl apply -f jobs/none.yaml",
        "ray job submit --working-dir . -- python jobs/none.py jobs/recipes/cluster.yaml",
        "30 2 * * *  cd /srv/davir_ray && .venv/bin/ray job submit -- python jobs/none.py jobs/recipes/cluster.yaml",
        ".venv/bin/python jobs/none.py",
        ".ci/run fast",
        "python jobs/score.py",
        "export HOME=.",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(text):
    with pytest.raises((AssertionError, click.UsageError, KeyError)):
        check(Command("README.md", text))


@pytest.mark.parametrize("text", ["davir nights", "davir score --rows"])
def test_what_prose_names_and_does_not_exist_is_noticed(text):
    with pytest.raises(AssertionError):
        check(Command("README.md", text, is_named=True))


def test_a_block_of_something_else_is_noticed():
    assert list(of_block("davir scores  # a list\n")) == ["davir scores"]
    with pytest.raises(ValueError, match="'tree davir' begins with no known program"):
        list(of_block("davir scores\ntree davir\n"))


def test_there_are_commands_of_every_document():
    files = {command.file for command in COMMANDS}
    assert {
        "README.md",
        "CONTRIBUTING.md",
        "docs/training.md",
        "cluster.yaml",
        "jobs/nightly-cronjob.yaml",
        "jobs/raycluster.yaml",
        "jobs/rayjob.yaml",
        "jobs/score.py",
    } <= files


def test_settings_on_the_command_line_are_settings_of_a_recipe(tmp_path):
    tree = {
        "corpus": {"paths": "rows.jsonl"},
        "models": {"base": "base"},
        "reference": {"train": {}},
        "train": {},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    found = 0
    for command in COMMANDS:
        words = shlex.split(command.text)
        overrides = [value for option, value in zip(words, words[1:], strict=False) if option == "--set"]
        load_recipe(tmp_path / "recipe.yaml", overrides)
        found += len(overrides)
    assert found >= 5


@pytest.mark.parametrize("verb", ["score", "train", "run", "reference", "nightly"])
def test_a_job_under_a_python_without_ray_says_which_it_needs(verb):
    command = [sys.executable, "-E", "-S", str(ROOT / "jobs" / f"{verb}.py"), "recipe.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"error: {sys.executable} has no Ray: a job's `python` is the one on the PATH"
    )
    assert done.stderr.count("\n") == 1
