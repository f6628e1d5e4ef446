"""What a record tells of measuring."""

import pyarrow as pa
import pytest

from davir_ray.config import EngineConfig
from davir_ray.errors import EngineError
from davir_ray.job import counts, measure_models, measuring
from davir_ray.logprobs.choice import Choice
from davir_ray.measure import ray_room
from davir_ray.measure.measurement import Plan


def test_what_was_begun_again_is_summed_over_all_starts_of_a_run():
    plans = {"base": Plan(12, 9, 90, pa.table({})), "reference": Plan(12, 12, 120, pa.table({}))}
    events = [
        {"event": "measure", "role": "base", "retried_sequences": 0},
        {
            "event": "measure",
            "role": "base",
            "retried_sequences": 4,
        },  # the next start, which found a chunk of 4 begun
        {"event": "measured", "role": "base", "retried_sequences": 2},
        {"event": "measure", "role": "reference", "retried_sequences": 0},
        {"event": "measured", "role": "reference", "retried_sequences": 0},
        {"event": "rank", "rows": 12},
    ]
    assert counts(plans, events).tree() == {
        "measured": {"base": 9, "reference": 12},
        "measured_again": {"base": 6, "reference": 0},
        "reused": {"base": 3, "reference": 0},
    }


def test_what_is_planned_once_more_was_measured_before():
    plans = {"base": Plan(12, 2, 20, pa.table({}))}
    events = [
        {"event": "measure", "role": "base", "anew": True, "sequences": 12, "retried_sequences": 0},
        {"event": "select", "ranked": 12},  # finished; then its results were lost
        {"event": "measure", "role": "base", "anew": True, "sequences": 9, "retried_sequences": 0},
        {
            "event": "measure",
            "role": "base",
            "anew": False,
            "sequences": 9,
            "retried_sequences": 1,
        },  # resumed
        {"event": "measure", "role": "base", "anew": True, "sequences": 2, "retried_sequences": 0},  # damage
        {"event": "measured", "role": "base", "retried_sequences": 0},
    ]
    assert counts(plans, events).tree() == {
        "measured": {"base": 9},
        "measured_again": {"base": 3},
        "reused": {"base": 3},
    }


def only_turns(works, turn):
    """Let each pass have its turn, and measure nothing."""
    for work in works:
        with turn(work):
            pass


class Standing:
    """A job with one model to measure on a GPU, and a run that notes nothing."""

    def __init__(self):
        self.measurements = [self]
        self.run = self.store = self
        self.run_id, self.label, self.folder, self.plan_uri = "r-1", "base", "store", "nowhere/plan.parquet"
        self.engine, self.choice = EngineConfig(device="cuda"), Choice("vllm", "bfloat16", "cuda", "")

    def event(self, *_, **__):
        pass


@pytest.mark.parametrize("missing", [0, 3])
def test_an_engine_without_its_gpu_is_refused_where_something_is_to_be_measured(monkeypatch, missing):
    monkeypatch.setattr(ray_room, "_nodes", lambda: [{"CPU": 2.0}])
    todo = [{"tokens": 5, "sequences": 1}] * missing
    for name, value in (
        ("plan", Plan(3, missing, 5 * missing, pa.table({}))),
        ("chunks_left", todo),
        ("count_interrupted", 0),
    ):
        monkeypatch.setattr(measuring, name, lambda *_, value=value: value)
    monkeypatch.setattr(measuring, "measure", only_turns)
    if missing:
        with pytest.raises(EngineError, match=r"^engine\.device: cuda: asks for 1 x 1 CPU and 1 GPU"):
            measure_models(Standing(), may_measure=True)
    else:
        assert measure_models(Standing(), may_measure=True)["base"].missing == 0
