"""The documents of what a run leaves behind are those of the code, and the schemas fit what is written."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from davir_ray.cli.status import Statuses, statuses
from davir_ray.nightly.nights import Nights
from davir_ray.runs.run import Run
from davir_ray.storage.sealed import write_sealed
from docs.records import DOCS, KINDS, files
from tests import records


@pytest.mark.parametrize(("name", "text"), files().items())
def test_the_page_and_the_schemas_are_fresh(name, text):
    assert (DOCS / name).read_text() == text, "make schemas writes them"


def test_no_schema_is_left_over():
    assert {f"schemas/{path.name}" for path in (DOCS / "schemas").iterdir()} == set(files()) - {"records.md"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_field_and_part_is_documented(kind):
    schema = json.loads(files()[f"schemas/{kind.name}.json"])
    for part in (schema, *schema.get("$defs", {}).values()):
        assert part["description"]
        assert not [name for name, field in part["properties"].items() if not field.get("description")]


def test_every_event_and_field_of_one_is_documented():
    schema = json.loads(files()["schemas/event.json"])
    assert len(schema["oneOf"]) == len(schema["$defs"])
    for part in schema["$defs"].values():
        assert part["description"]
        assert not [name for name, field in part["properties"].items() if not field.get("description")]


def written(tmp_path: Path) -> dict[str, dict]:
    """Return one JSON object of each kind, of those in a file as the file has it."""
    trained, run = records.training_record(), records.run_record()
    job = records.job_record(reference=records.reference_record(), train=trained)
    Run.in_output(str(tmp_path), "run").finish(run)
    Run.in_output(str(tmp_path), "training").finish(trained)
    for name in ("run/recipe.json", "training/training.json"):
        (tmp_path / name).write_text("{}")
    Nights(str(tmp_path)).add(records.night_line())
    write_sealed(str(tmp_path / "drift.json"), records.drift().tree())
    found = {"reference": job.reference.tree(), "job": job.tree(), "plan": records.run_plan().tree()}
    found |= {"night": records.night_record().tree(), "status": Statuses(runs=statuses(str(tmp_path))).tree()}
    in_files = {"run": "run/record.json", "training": "training/record.json", "drift": "drift.json"}
    in_files |= {"night_line": "nights.jsonl"}
    return found | {name: json.loads((tmp_path / file).read_text()) for name, file in in_files.items()}


def test_what_is_written_fits_its_schema_and_nothing_else_does(tmp_path):
    trees = written(tmp_path)
    assert trees.keys() == {kind.name for kind in KINDS}
    for name, tree in trees.items():
        check = Draft202012Validator(json.loads(files()[f"schemas/{name}.json"]))
        check.validate(tree)
        assert not check.is_valid(tree | {"foreign": 1})
        assert name in ("reference", "status") or not check.is_valid(tree | {"schema_version": 2})
