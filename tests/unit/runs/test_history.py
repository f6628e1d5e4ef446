import json

import pytest

from davir_ray import storage
from davir_ray.recipe import parse_recipe
from davir_ray.runs.history import models_measured, past_run, past_runs
from davir_ray.runs.run import Run
from tests.records import run_record


def finished(tmp_path, run_id, when):
    run = Run.in_output(str(tmp_path), run_id)
    storage.write_atomic(storage.join(run.folder, "recipe.json"), b"{}")
    storage.write_atomic(
        storage.join(run.folder, "events.jsonl"),
        json.dumps({"time": when, "event": "select"}).encode() + b"\n",
    )
    run.finish(run_record(run_id=run_id))


def test_the_finished_runs_of_a_name_are_found_the_latest_last(tmp_path):
    finished(tmp_path, "my-name-0000000000ff", 3.0)
    finished(tmp_path, "my-name-ff0000000000", 2.0)
    for other in (
        "my-name-reference-0000000000aa",
        "other-0000000000aa",
        "my-name-sft-00000000aaaa",
        "nightly",
    ):
        finished(tmp_path, other, 9.0)
    storage.write_atomic(str(tmp_path / "my-name-00000000beef" / "recipe.json"), b"{}")
    found = past_runs(str(tmp_path), "my-name")
    assert [run.run_id for run in found] == ["my-name-ff0000000000", "my-name-0000000000ff"]
    assert past_runs(str(tmp_path / "nowhere"), "my-name") == []


def test_a_run_without_events_is_the_oldest(tmp_path):
    finished(tmp_path, "n-000000000001", 1.0)
    (tmp_path / "n-000000000001" / "events.jsonl").unlink()
    assert past_run(str(tmp_path / "n-000000000001")).ended == 0.0
    assert past_run(str(tmp_path / "n-000000000002")) is None


def with_references(references, **changes):
    tree = {"corpus": {"paths": "rows.jsonl"}, "models": {"base": "base", "reference": references}}
    return parse_recipe(tree | changes, "r")


@pytest.mark.parametrize(
    ("references", "expected"),
    [("ref", ("b2",)), (["one", "two"], ("c1", "c2")), ("other", ()), ("org/name", ("d1",))],
)
def test_the_references_that_earlier_runs_measured_are_known(tmp_path, monkeypatch, references, expected):
    monkeypatch.chdir(tmp_path)
    runs = [("ref", ["b1"]), ("ref", ["b2"]), (["one", "two"], ["c1", "c2"]), ("org/name", ["d1"])]
    for number, (names, identities) in enumerate(runs):
        run = Run.in_output(str(tmp_path / "runs"), f"n-00000000000{number}")
        made = [f"{tmp_path}/{name}" for name in names] if isinstance(names, list) else f"{tmp_path}/{names}"
        recipe = with_references(names if names == "org/name" else made)
        base = recipe.models.base.model_copy(update={"model_name_or_path": f"{tmp_path}/base"})
        recipe = recipe.model_copy(update={"models": recipe.models.model_copy(update={"base": base})})
        storage.write_atomic(storage.join(run.folder, "recipe.json"), recipe.model_dump_json().encode())
        storage.write_atomic(
            storage.join(run.folder, "events.jsonl"),
            json.dumps({"time": float(number), "event": "select"}).encode() + b"\n",
        )
        run.finish(run_record(run_id=run.run_id, models={"base": ["a"], "reference": identities}))
    asked = with_references(references, output=str(tmp_path / "runs"))
    assert models_measured(asked, "n").get("reference", ()) == expected
    assert models_measured(asked, "another-name") == {}
