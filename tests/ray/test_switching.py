"""One engine process measures base and reference in turn, and the result is that of two, to the byte."""

import json
import os
import shutil
from itertools import groupby
from pathlib import Path

import pytest

from davir_ray import pipeline
from davir_ray.errors import EngineDied, EngineError
from davir_ray.job import measuring
from davir_ray.runs.record import RunRecord
from tests.noted_engines import NOTES, QuickHash
from tests.ray.test_main_job import ROWS, digest, recipe, write_corpus

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

FILES = 6


class FallsOnce(QuickHash):
    """Falls at its first switch: `fallen` beside the models says that this has been."""

    def switch(self, model):
        fallen = Path(model.model_path).parent / "fallen"
        if not fallen.exists():
            fallen.touch()
            self.fall()
        super().switch(model)

    def fall(self):
        """End as an engine that says so."""
        raise EngineDied("half overwritten")


class RefusesOnce(FallsOnce):
    """The same with an error that need not end it."""

    def fall(self):
        """Say why."""
        raise EngineError("no room")


class DiesOnce(FallsOnce):
    """The same, and says nothing."""

    def fall(self):
        """End as a process that is killed."""
        os._exit(1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "rows"
    write_corpus(folder, ROWS, FILES)
    return folder


@pytest.fixture
def run(corpus, tmp_path):
    """Score the corpus under two models with an engine; a folder keeps store and output."""

    def scored(models, engine: str, folder: str = "", **settings) -> RunRecord:
        settings = {"type": engine, "num_cpus": 1} | settings
        return pipeline.score(recipe(tmp_path / folder, models, corpus, engine=settings), "test")

    return scored


@pytest.fixture
def models(tiny_models, tmp_path):
    """The models, in a folder of this test: engines note their calls beside them."""
    return tuple(str(shutil.copytree(path, tmp_path / "models" / Path(path).name)) for path in tiny_models)


def events(record: RunRecord) -> list[dict]:
    return [json.loads(line) for line in Path(record.run_dir, "events.jsonl").read_text().splitlines()]


def calls(tmp_path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "models" / NOTES).read_text().splitlines()]


@pytest.mark.parametrize("engine", ["hash", "transformers"])
def test_the_result_is_that_of_an_engine_for_each_model(run, tiny_models, monkeypatch, engine):
    together = run(tiny_models, engine, "together")
    monkeypatch.setattr(measuring, "in_turn", lambda passes, _: [[one] for one in passes])
    apart = run(tiny_models, engine, "apart")
    assert together.selected
    assert digest(together) == digest(apart)
    assert together.measured == apart.measured == {"base": len(ROWS) - 3, "reference": len(ROWS) - 3}


def test_one_process_measures_both_one_after_the_other(run, tmp_path, models):
    run(models, "tests.noted_engines:QuickHash", num_cpus=0.5, replicas=2)
    by_process: dict[int, list[str]] = {}
    for call in calls(tmp_path):
        by_process.setdefault(call["process"], []).append(call["model"])
    orders = [[model for model, _ in groupby(order)] for order in by_process.values()]
    assert {"base", "reference"} in map(set, orders)
    assert all(len(order) <= 4 for order in orders), "a chunk that is still on its way may cost a switch"
    assert len(calls(tmp_path)) == 2 * FILES


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (FallsOnce, "cannot go over to reference: half overwritten"),
        (DiesOnce, ""),
        (RefusesOnce, "cannot go over to reference: no room"),
    ],
)
def test_a_switch_that_ends_the_engine_costs_a_process_and_nothing_else(
    run, tmp_path, models, capfd, engine, why
):
    record = run(models, f"{__name__}:{engine.__name__}")
    told = capfd.readouterr().err
    assert ("another went on: " in told) == bool(why)
    assert why in told
    assert record.status == {"ok": len(ROWS) - 3, "duplicate": 3}
    assert len({call["process"] for call in calls(tmp_path)}) == 2
    measured = [(call["model"], key) for call in calls(tmp_path) for key in call["ids"]]
    assert len(measured) == len(set(measured)) == 2 * (len(ROWS) - 3)
    last = {event["role"]: event for event in events(record) if event["event"] == "progress"}
    restarts = {role: event["engine_restarts"] for role, event in last.items()}
    assert restarts == {"base": 0, "reference": 1}
    assert record.measured_again == {"base": 0, "reference": 0}


def test_a_run_that_stops_between_two_passes_goes_on_with_the_second(run, tiny_models, monkeypatch):
    calm = run(tiny_models, "hash", "calm")
    turn = measuring._turn

    def until_the_second(job, work):
        if work.measurement.model == "reference":
            raise KeyboardInterrupt
        return turn(job, work)

    monkeypatch.setattr(measuring, "_turn", until_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_models, "hash", "stopped")
    monkeypatch.undo()
    record = run(tiny_models, "hash", "stopped")
    assert digest(record) == digest(calm)
    assert record.measured == calm.measured
    told = [event["role"] for event in events(record) if event["event"] == "measured"]
    assert told == ["base", "base", "reference"]


def test_references_of_three_parts_of_the_corpus_are_measured_by_one_process(run, tmp_path, models):
    folders = [models[1], *(shutil.copytree(models[1], f"{models[1]}-{part}") for part in (1, 2))]
    for number, folder in enumerate(folders):
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"number": number}))
    record = run((models[0], [str(folder) for folder in folders]), "tests.noted_engines:QuickHash")
    assert record.status == {"ok": len(ROWS) - 3, "duplicate": 3}
    order = [model for model, _ in groupby(call["model"] for call in calls(tmp_path))]
    assert set(order) == {"base", *(Path(folder).name for folder in folders)}
    assert len(order) <= 2 * 4, "a chunk that is still on its way may cost a switch, and not each does"
    assert len({call["process"] for call in calls(tmp_path)}) == 1
