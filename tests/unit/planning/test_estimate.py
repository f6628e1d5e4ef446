import pytest

from davir_ray.planning.estimate import Speed, estimate, passes, speed_of, total
from davir_ray.runs.history import PastRun
from davir_ray.runs.record import EngineUsed
from tests.records import run_record

HASH, VLLM = ("hash", "float32"), ("vllm", "bfloat16")


def run(events, base="b", engine=HASH, store="/m/f1"):
    record = run_record(
        models={"base": [base], "reference": []},
        engine=EngineUsed(type=engine[0], dtype=engine[1], reason=""),
        measurements={"base": store},
    )
    return PastRun(record, {}, tuple(events), "/runs/n-1")


def measured(tokens, busy):
    return [
        {"event": "prepare", "splits": 1},
        {"event": "measure", "role": "base", "tokens_left": tokens},
        {"event": "progress", "role": "base", "tokens": tokens},
        {"event": "measured", "role": "base", "engine_seconds": busy},
    ]


def found(*runs):
    return [one for past in runs for one in passes(past)]


def test_a_speed_is_tokens_over_busy_seconds_of_all_passes_of_this_model():
    past = found(
        run(measured(100, 10.0)), run(measured(500, 10.0)), run(measured(9999, 1.0), store="/m/other")
    )
    assert speed_of("/m/f1", HASH, ["b"], past).tokens_per_second == 30.0


def test_a_new_reference_is_as_fast_as_its_base():
    past = found(
        run(measured(100, 10.0)), run(measured(9999, 1.0), base="c"), run(measured(9999, 1.0), engine=VLLM)
    )
    speed = speed_of("/m/new", HASH, ["b"], past)
    assert speed.tokens_per_second == 10.0
    assert "1 earlier passes of this base" in speed.basis


@pytest.mark.parametrize(
    "events",
    [
        measured(0, 0.0),
        measured(100, 0.0),
        measured(100, 5.0)[:2],
        [*measured(100, 5.0)[:2], *measured(100, 2.0)],
    ],
)
def test_passes_that_tell_nothing_are_left_out(events):
    assert speed_of("/m/f1", HASH, ["b"], found(run(events))) is None


def test_gpu_hours_are_busy_seconds_times_gpus_an_engine():
    one = estimate(7_200_000, Speed(1000.0, "x"), engines=8, gpus=2)
    assert (one.busy_seconds, one.seconds, one.gpu_hours) == (7200.0, 900.0, 4.0)
    assert estimate(1000, Speed(1000.0, "x"), engines=1, gpus=0).gpu_hours == 0.0


def test_models_are_measured_one_after_the_other():
    one = estimate(1000, Speed(100.0, "x"), engines=1, gpus=1)
    both = total({"base": one, "reference": one})
    assert (both.seconds, both.busy_seconds) == (20.0, 20.0)
    assert set(both.models) == {"base", "reference"}
    assert total({"base": one, "reference": None}) is None
