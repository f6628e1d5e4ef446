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
    """Has no engine left after its first switch: `fallen` beside the models says that this has been."""

    def switch(self, model):
        fallen = Path(model.model_path).parent / "fallen"
        if not fallen.exists():
            fallen.touch()
            self.fall()
        super().switch(model)

    def fall(self):
        """End as an engine that says so."""
        raise EngineDied("half overwritten")


class DiesOnce(FallsOnce):
    """The same, and says nothing."""

    def fall(self):
        """End as a process that is killed."""
        os._exit(1)


class Refuses(QuickHash):
    """Cannot be switched."""

    def switch(self, model):
        """Say so."""
        raise EngineError(f"no room for {Path(model.model_path).name}")


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


def test_one_process_measures_both_and_never_goes_back(run, tmp_path, models):
    run(models, "tests.noted_engines:QuickHash", num_cpus=0.5, replicas=2)
    by_process: dict[int, list[str]] = {}
    for call in calls(tmp_path):
        by_process.setdefault(call["process"], []).append(call["model"])
    for order in by_process.values():
        assert [model for model, _ in groupby(order)] in (["base", "reference"], ["base"], ["reference"])
    assert ["base", "reference"] in [[model for model, _ in groupby(order)] for order in by_process.values()]
    assert len(calls(tmp_path)) == 2 * FILES


@pytest.mark.parametrize("engine", [FallsOnce, DiesOnce])
def test_a_switch_that_ends_the_engine_costs_a_process_and_nothing_else(run, tmp_path, models, engine):
    record = run(models, f"{__name__}:{engine.__name__}")
    assert record.status == {"ok": len(ROWS) - 3, "duplicate": 3}
    assert len({call["process"] for call in calls(tmp_path)}) == 2
    measured = [(call["model"], key) for call in calls(tmp_path) for key in call["ids"]]
    assert len(measured) == len(set(measured)) == 2 * (len(ROWS) - 3)


def test_a_switch_that_is_refused_ends_the_run_with_its_reason(run, models):
    with pytest.raises(EngineError, match="no room for reference"):
        run(models, f"{__name__}:Refuses")
