import numpy as np
import pytest

from davir_ray.config import WarmupConfig
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.planning.estimate import (
    Pass,
    Speed,
    estimate,
    passes,
    speed_of,
    target_estimate,
    total,
    warmup_estimate,
)
from davir_ray.runs.history import PastRun
from davir_ray.runs.record import EngineUsed
from davir_ray.target.rows import FewShot, FewShotRow
from tests.records import run_record

HASH, VLLM = ("hash", "float32"), ("vllm", "bfloat16")


def run(events, base="b", engine=HASH, store="/m/f1", label="base"):
    record = run_record(
        models={"base": [base], "reference": []},
        engine=EngineUsed(type=engine[0], dtype=engine[1], reason=""),
        measurements={label: store},
    )
    return PastRun(record, {}, tuple(events), "/runs/n-1")


def measured(tokens, busy, label="base"):
    return [
        {"event": "prepare", "splits": 1},
        {"event": "measure", "role": label, "tokens_left": tokens},
        {"event": "progress", "role": label, "tokens": tokens},
        {"event": "measured", "role": label, "engine_seconds": busy},
    ]


def asked(store, kind="loss"):
    return Pass(store, kind, HASH, ("b",))


def found(*runs):
    return [one for past in runs for one in passes(past)]


def test_a_speed_is_tokens_over_busy_seconds_of_all_passes_of_this_model():
    past = found(
        run(measured(100, 10.0)), run(measured(500, 10.0)), run(measured(9999, 1.0), store="/m/other")
    )
    assert speed_of(asked("/m/f1"), past).tokens_per_second == 30.0


def test_a_new_reference_is_as_fast_as_its_base():
    past = found(
        run(measured(100, 10.0)), run(measured(9999, 1.0), base="c"), run(measured(9999, 1.0), engine=VLLM)
    )
    speed = speed_of(asked("/m/new"), past)
    assert speed.tokens_per_second == 10.0
    assert "1 earlier passes of this base" in speed.basis


def test_gradients_are_not_as_fast_as_forward_passes():
    losses = found(run(measured(1000, 1.0)))
    assert speed_of(asked("/m/new", "rose"), losses) is None
    label = "warmup-1-rose"
    both = [*losses, *found(run(measured(10, 1.0, label), store="/m/g", label=label))]
    assert speed_of(asked("/m/new", "rose"), both).tokens_per_second == 10.0
    assert speed_of(asked("/m/new"), both).tokens_per_second == 1000.0


def test_a_probe_goes_before_other_models_and_behind_this_very_one():
    past, probed = found(run(measured(100, 10.0))), Speed(7.0, "a probe")
    assert speed_of(asked("/m/new"), past, probed) == probed
    assert speed_of(asked("/m/f1"), past, probed).tokens_per_second == 10.0
    assert speed_of(asked("/m/new"), [], probed) == probed


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
    assert speed_of(asked("/m/f1"), found(run(events))) is None


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


def test_a_warm_up_takes_its_share_of_the_corpus_once_an_epoch():
    train = {"num_train_epochs": 3, "num_workers": 2}
    one = warmup_estimate(1000, WarmupConfig(fraction=0.25, train=train), Speed(10.0, "x"), gpus=1)
    assert (one.busy_seconds, one.seconds, one.engines) == (75.0, 37.5, 2)  # 1000 * 0.25 * 3 / 10
    assert one.gpu_hours == round(75 / 3600, 4)


def test_the_target_takes_both_sides_of_its_pairs_under_each_model():
    def sequence(tokens):
        return TokenSequence(np.zeros(tokens, np.int32), np.ones(tokens, bool))

    pair = FewShotRow("a", "t:0", b"", sequence(30), sequence(20))
    alone = FewShotRow("b", "t:1", b"", sequence(10), None)
    one = target_estimate(FewShot((pair, alone), {}, {}), 4, Speed(10.0, "x"), gpus=2)
    assert (one.busy_seconds, one.seconds, one.engines) == (24.0, 24.0, 1)  # (30 + 20 + 10) * 4 / 10
    assert one.gpu_hours == round(24 * 2 / 3600, 4)


def test_a_sum_has_the_warm_up_and_the_target_in_it():
    one, warmup, target = (
        estimate(tokens, Speed(10.0, "x"), engines=1, gpus=0) for tokens in (100, 200, 400)
    )
    assert total({"a": one}, warmup, target).seconds == 10.0 + 20.0 + 40.0
    assert total({}, None, target, ("warmup",)).not_priced == ("warmup",)
