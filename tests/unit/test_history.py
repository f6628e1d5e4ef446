import json

from davir_ray import storage
from davir_ray.history import past_run, past_runs
from davir_ray.run import Run


def finished(tmp_path, run_id, when):
    run = Run.named(str(tmp_path), run_id)
    storage.write_atomic(run.uri("recipe.json"), b"{}")
    storage.write_atomic(
        run.uri("events.jsonl"), json.dumps({"time": when, "event": "select"}).encode() + b"\n"
    )
    run.finish({"run_id": run_id})


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
