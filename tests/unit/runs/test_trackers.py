"""W&B, offline, and MLflow, in files, are told of a run: read back from what they wrote."""

import json
import struct
from pathlib import Path

import pytest

from davir_ray.errors import RecipeError
from davir_ray.recipe import parse_recipe
from davir_ray.runs import trackers
from davir_ray.runs.run import Run
from davir_ray.runs.trackers import check_trackers, figures_of_event, figures_of_record, reporting
from tests.records import run_record

PROGRESS = {
    "role": "base",
    "sequences": 8,
    "tokens": 64,
    "counted_tokens": 32,
    "tokens_per_second": 12.5,
    "engine_seconds": 3.0,
    "engine_restarts": 0,
    "retried_sequences": 0,
    "missing_sequences": 4,
    "reuse_share": 0.25,
}


def asked(tmp_path, *names, **more):
    tree = {
        "corpus": {"paths": "rows.parquet"},
        "models": {"base": "b", "reference": "r"},
        "output": str(tmp_path / "runs"),
        "report_to": names,
        **more,
    }
    return parse_recipe(tree, "told")


def test_figures_are_the_numbers_of_events_and_of_the_record():
    event = {"time": 1.0, "event": "progress", **PROGRESS}
    assert figures_of_event(event)["base/tokens_per_second"] == 12.5
    assert "base/time" not in figures_of_event(event)
    assert figures_of_event({"time": 1.0, "event": "rank", "rows": 3}) == {}
    found = figures_of_record(run_record())
    assert (found["rows"], found["selected"], found["measured/base"]) == (12, run_record().selected, 12)
    assert not {"schema_version", "run_id"} & set(found)
    assert all(isinstance(value, int | float) for value in found.values())


@pytest.fixture
def mlflow_client(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="requirements/cpu.txt has it")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"file://{tmp_path}/mlflow")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return MlflowClient(uri)


def mlflow_runs(client):
    return client.search_runs([client.get_experiment_by_name("davir_ray").experiment_id])


def test_mlflow_keeps_settings_progress_and_result(tmp_path, mlflow_client):
    recipe = asked(tmp_path, "mlflow", label="first try")
    run = Run.begin(recipe, "told-1")
    with reporting(run, recipe) as told:
        run.event("progress", **PROGRESS)
        run.event("progress", **PROGRESS | {"tokens": 128})
        told.record(run_record(dropped_by={"0:fraction": 11}))
    (kept,) = mlflow_runs(mlflow_client)
    assert (kept.info.status, kept.info.run_name) == ("FINISHED", "first try (told-1)")
    history = mlflow_client.get_metric_history(kept.info.run_id, "base/tokens")
    assert [(one.step, one.value) for one in history] == [(1, 64), (2, 128)]
    assert kept.data.metrics["rows"] == 12
    assert kept.data.metrics["dropped_by/0:fraction"] == 11
    (path,) = (tmp_path / "mlflow").rglob("recipe.json")
    assert json.loads(path.read_text()) == recipe.model_dump(mode="json")


def test_a_run_that_goes_on_is_the_same_run_in_mlflow(tmp_path, mlflow_client):
    recipe = asked(tmp_path, "mlflow")
    with pytest.raises(KeyboardInterrupt), reporting(Run.begin(recipe, "told-1"), recipe):
        raise KeyboardInterrupt
    assert [one.info.status for one in mlflow_runs(mlflow_client)] == ["FAILED"]
    with reporting(Run.begin(recipe, "told-1"), recipe):
        assert [one.info.status for one in mlflow_runs(mlflow_client)] == ["RUNNING"]
    with reporting(Run.begin(recipe, "told-2"), recipe):
        pass
    assert sorted(one.info.run_name for one in mlflow_runs(mlflow_client)) == ["told-1", "told-2"]


def offline_records(path: Path):
    """Read a file of W&B's: records in blocks of 32 KiB, as LevelDB writes its log."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(whole)
            whole = b""


@pytest.fixture
def wandb_folder(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="requirements/cpu.txt has it")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    yield tmp_path / "wandb"
    import wandb

    wandb.teardown()  # it keeps the environment in which it was first used


def test_wandb_keeps_settings_progress_and_result(tmp_path, wandb_folder):
    recipe = asked(tmp_path, "wandb", label="erster Läufer")
    run = Run.begin(recipe, "told-1")
    with reporting(run, recipe) as told:
        run.event("progress", **PROGRESS)
        told.record(run_record())
    (path,) = wandb_folder.glob("offline-run-*/*.wandb")
    records = list(offline_records(path))
    (begun,) = [one.run for one in records if one.HasField("run")]
    assert (begun.project, begun.display_name) == ("davir_ray", "erster Läufer (told-1)")
    config = {one.key: json.loads(one.value_json) for one in begun.config.update}
    assert config["corpus"]["paths"] == recipe.model_dump(mode="json")["corpus"]["paths"]
    assert config["run_dir"] == run.folder
    logged = {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for one in records
        if one.HasField("history")
        for item in one.history.item
    }
    assert logged["base/tokens_per_second"] == 12.5
    assert logged["rows"] == 12
    assert [one.exit.exit_code for one in records if one.HasField("exit")] == [0]
    assert not list(wandb_folder.rglob("wandb-metadata.json"))  # which would hold the command line


def test_a_run_of_wandb_that_the_caller_has_open_stays_his(tmp_path, wandb_folder):
    import wandb

    recipe = asked(tmp_path, "wandb")
    with wandb.init(project="mine", settings=wandb.Settings(silent=True)) as own:
        with reporting(Run.begin(recipe, "told-1"), recipe) as told:
            told.record(run_record())
        assert wandb.run is own
        own.log({"loss": 1.0})
    assert len(list(wandb_folder.glob("offline-run-*/*.wandb"))) == 2
    assert own.summary.get("rows") is None


class Broken:
    """A tracker that cannot be reached any more."""

    def __init__(self, *_):
        pass

    def note(self, figures, step):
        raise ConnectionError("nobody is there\nand more")

    def end(self, succeeded):
        raise AssertionError("told although it failed")


def unreachable(*_):
    raise OSError("no route")


@pytest.mark.parametrize(("tracker", "why"), [(Broken, "nobody is there"), (unreachable, "no route")])
def test_a_tracker_that_fails_costs_one_warning(tmp_path, monkeypatch, capsys, tracker, why):
    monkeypatch.setitem(trackers.TRACKERS, "wandb", tracker)
    recipe = asked(tmp_path, "wandb")
    run = Run.begin(recipe, "told-1")
    with reporting(run, recipe) as told:
        run.event("progress", **PROGRESS)
        told.record(run_record())
    assert capsys.readouterr().err == f"warning: report_to: wandb is told nothing more of this run: {why}\n"
    assert run.watchers == []


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"^report_to: mlflow is not installed$"):
        check_trackers("report_to", ["mlflow"])
