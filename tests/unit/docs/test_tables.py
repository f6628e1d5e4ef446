"""Tables of the documents that list what the code has, name all of it and nothing else."""

import re
from typing import get_args

import click

from davir_ray import errors
from davir_ray.cli import main
from davir_ray.config import ExportConfig, SelectRule
from davir_ray.drift.causes import Cause
from davir_ray.schema import SCORED, Status
from davir_ray.scores import SCORES
from tests.documented_commands import ROOT


def first_cells(document: str, head: str) -> list[str]:
    """Return the code spans in the first column of the table whose head begins with a word."""
    text = (ROOT / document).read_text()
    table = text[text.index(f"| {head} |") :].split("\n\n")[0]
    return [
        span for line in table.splitlines()[2:] for span in re.findall(r"`([^`]+)`", line.split(" | ")[0])
    ]


def test_the_readme_is_a_door():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_the_readme_names_all_verbs():
    verbs = {f"davir {name}" for name in main.commands}
    assert set(first_cells("README.md", "verb")) == verbs
    group = main.commands["store"]
    assert isinstance(group, click.Group)
    (line,) = re.findall(r"^\| `davir store` \|(.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", line)) == set(group.commands)


def test_the_readme_names_all_scores():
    assert set(first_cells("README.md", "score")) == set(SCORES)


def test_the_statuses():
    assert sorted(first_cells("docs/results.md", "status")) == sorted(Status)


def test_the_columns_of_the_scored_table():
    assert first_cells("docs/results.md", "column of `scored`") == SCORED.names


def test_the_exports():
    (formats,) = get_args(ExportConfig.model_fields["formats"].annotation)[:1]
    assert first_cells("docs/results.md", "format") == list(get_args(formats))


def test_the_rules():
    types = [rule.model_fields["type"].default for rule in get_args(get_args(SelectRule)[0])]
    shown = re.findall(r"\{type: (\w+)", " ".join(first_cells("docs/choosing.md", "rule")))
    assert sorted(shown) == sorted(types)


def test_the_causes_of_drift():
    assert first_cells("docs/nightly.md", "cause") == list(Cause)


def test_the_exit_codes():
    text = (ROOT / "docs" / "faults.md").read_text()
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    raised = {one.exit_code for one in vars(errors).values() if hasattr(one, "exit_code")}
    assert told == raised | {0, 130}
