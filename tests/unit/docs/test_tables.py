"""Tables of the documents that list what the code has, name all of it and nothing else."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click

from davir_ray import errors
from davir_ray.cli import main
from davir_ray.cluster.ray_metrics import METRICS
from davir_ray.drift.causes import Cause
from davir_ray.schema import SCORED, Status
from davir_ray.scores import SCORES
from docs.recipe_page import Recipe, models_in
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
    (export,) = models_in(Recipe.model_fields["export"].annotation)
    formats = get_args(get_args(export.model_fields["formats"].annotation)[0])
    assert first_cells("docs/results.md", "format") == list(formats)


def test_the_metrics():
    assert first_cells("docs/cluster.md", "metric") == [one.scraped_as for one in METRICS]


def test_the_rules():
    types = [
        rule.model_fields["type"].default for rule in models_in(Recipe.model_fields["select"].annotation)
    ]
    shown = re.findall(r"\{type: (\w+)", " ".join(first_cells("docs/choosing.md", "rule")))
    assert sorted(shown) == sorted(types)


def test_the_causes_of_drift():
    assert first_cells("docs/nightly.md", "cause") == list(Cause)


def test_the_exit_codes():
    text = (ROOT / "docs" / "faults.md").read_text()
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    raised = {one.exit_code for one in vars(errors).values() if hasattr(one, "exit_code")}
    assert told == raised | {0, 130}


def test_the_page_of_a_night_names_jobs_that_are_there():
    named = set(re.findall(r"jobs/[\w./-]+\.(?:py|yaml)", (ROOT / "docs" / "nightly.md").read_text()))
    assert {"jobs/nightly.py", "jobs/nightly-cronjob.yaml"} <= named
    assert [name for name in named if not (ROOT / name).is_file()] == []


NOT_THERE = {"corpus/csv_files.py", "site/"}
"""What a change would add, and what is built."""


def test_what_contributing_names_is_there():
    spans = set(re.findall(r"`([^`\n ]+)`", (ROOT / "CONTRIBUTING.md").read_text()))
    files = {
        span for span in spans if re.fullmatch(r"[\w./-]+\.(?:py|md|yml|in|txt)|[\w/]+/", span)
    } - NOT_THERE
    there = [path.relative_to(ROOT).as_posix() for path in tracked()]
    for name in files:
        assert any(f"/{path}".endswith(f"/{name}") or f"/{name}" in f"/{path}" for path in there), name
    source = "".join(path.read_text() for path in ROOT.glob("davir_ray/**/*.py"))
    for name in (span for span in spans if re.fullmatch(r"[A-Z]\w+|_\w+", span)):
        assert re.search(rf"\b{name}\b", source), name


def tracked() -> Iterator[Path]:
    """Yield the files of the repository that CONTRIBUTING may name."""
    for folder in ("davir_ray", "tests", "docs", "jobs", "benchmarks", "requirements", ".ci"):
        yield from (path for path in (ROOT / folder).rglob("*") if path.is_file())
    yield from (path for path in ROOT.iterdir() if path.is_file())
