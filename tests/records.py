"""Records of runs, trainings and nights as a test needs them: whole, and changed where it looks."""

from typing import Any

from davir_ray.drift.result import CoreSetsCompared, Drift, RowsCompared, ScoresCompared
from davir_ray.nightly.nights import NightLine, NightRecord, night_of
from davir_ray.planning.plan import PassEstimate, PlannedView, RunPlan, TimeEstimate
from davir_ray.runs.changes import Change
from davir_ray.runs.lease import Holder
from davir_ray.runs.record import (
    EngineUsed,
    Facts,
    HeldOut,
    JobRecord,
    ReferenceRecord,
    RunRecord,
    TrainingRecord,
    TrainingSettings,
)

FACTS: dict[str, Any] = {
    "run_id": "r-1",
    "run_dir": "runs/r-1",
    "davir_ray": "0.1.0",
    "ray": "2.60.0",
    "versions": {"torch": "2.13.0"},
    "score": "davir",
    "score_code": "",
    "formats": {"corpus": "alpaca"},
    "not_read": {},
    "models": {"base": ("b" * 32,), "reference": ("r" * 32,)},
    "engine": EngineUsed(type="vllm", dtype="bfloat16", reason="a GPU"),
    "measurements": {"base": "/store/measurements/fb", "reference": "/store/measurements/fr"},
    "bad_files": (),
}
RUN: dict[str, Any] = {
    "measured": {"base": 12},
    "measured_again": {"base": 0},
    "reused": {"base": 0},
    "rows": 12,
    "ranked": 12,
    "selected": 3,
    "tokens": 30,
    "ranked_tokens": 210,
    "status": {"ok": 12},
    "dropped_by": {"0:count": 9},
    "dropped_groups": {},
    "sources": {},
    "length_correlation": None,
    "length_correlation_rows": 12,
    "best": (),
    "borderline": (),
    "worst": (),
    "scored": "runs/r-1/scored",
    "coreset": {"parquet": "runs/r-1/coreset"},
    "seconds": 2.5,
}
TRAINING: dict[str, Any] = {
    "run_id": "r-sft-1",
    "run_dir": "runs/r-sft-1",
    "model": "runs/r-sft-1/model",
    "metrics": "runs/r-sft-1/metrics.jsonl",
    "objective": "sft",
    "trained_on": "the core-set of r-1",
    "core_set": "c" * 32,
    "rows": 1200,
    "left_out": 0,
    "base": "b" * 32,
    "frozen_logps": None,
    "settings": TrainingSettings(learning_rate=2e-5, dtype="float32", device="cpu", seed=0),
    "steps": 150,
    "train_loss": 1.25,
    "eval": HeldOut(before={"loss": 1.5, "runtime": 3.0}, after={"loss": 1.25, "runtime": 3.0}),
    "versions": {"torch": "2.13.0"},
    "seconds": 12.5,
}
DRIFT: dict[str, Any] = {
    "before": "r-0",
    "after": "r-1",
    "changes": (Change(what="select", detail="select: 2 -> 3"),),
    "rows": RowsCompared(before=10, after=12, both=9),
    "core_set": CoreSetsCompared(
        before=4, after=3, both=2, change=0.6, came={"data": 1}, went={"others": 1, "rule": 1}
    ),
    "rank_correlation": 0.9,
    "rank_correlation_rows": 9,
    "ranked_in_both": 9,
    "scores": {"corpus": ScoresCompared(before=(0.0, 0.5), after=(0.25, 0.75))},
}

PLAN: dict[str, Any] = {
    "last_run": "r-0",
    "finished": False,
    "to_make": (),
    "changes": (Change(what="tokens", detail="tokens.template: 1 -> 2"),),
    "measured": {"base": 200},
    "reused": {"base": 1000},
    "tokens": {"base": 9000},
    "views": (
        PlannedView(
            model="base",
            view="response",
            rows=1200,
            missing=200,
            tokens=9000,
            failed=3,
            why={"new_row": 150, "changed_row": 50},
        ),
    ),
    "estimate": TimeEstimate(
        busy_seconds=90.0,
        seconds=90.0,
        gpu_hours=0.5,
        models={
            "base": PassEstimate(
                tokens_per_second=100.0,
                busy_seconds=90.0,
                seconds=90.0,
                gpu_hours=0.5,
                engines=1,
                basis="1 earlier passes of this model by vllm in bfloat16",
            )
        },
    ),
}


def facts(**changes: Any) -> Facts:
    """Make the facts of a run."""
    return Facts(**FACTS | changes)


def run_record(**changes: Any) -> RunRecord:
    """Make the record of a finished run of twelve rows."""
    return RunRecord(**FACTS | RUN | changes)


def training_record(**changes: Any) -> TrainingRecord:
    """Make the record of a finished training."""
    return TrainingRecord(**TRAINING | changes)


def drift(**changes: Any) -> Drift:
    """Make what two nights differ in."""
    return Drift(**DRIFT | changes)


def night_line(**changes: Any) -> NightLine:
    """Make the line of a first night."""
    line = night_of(run_record(), None, measured_before=False)
    return line.model_copy(update={"time": "2026-11-28T02:00:00+00:00"} | changes)


def run_plan(**changes: Any) -> RunPlan:
    """Make the plan of a run of which a part is measured."""
    return RunPlan(**FACTS | PLAN | changes)


def night_record(**changes: Any) -> NightRecord:
    """Make what a second night did."""
    ended = {"night": night_line(), "drift": drift(), "past_limits": (), "is_new": True}
    return NightRecord(**dict(run_record()) | ended | changes)


def holder(**changes: Any) -> Holder:
    """Make who holds a lease."""
    known = {"id": "x", "host": "node-3 pid:[1]", "pid": 7, "started": 0.0, "heartbeat": 60.0}
    return Holder(**known | {"released": False} | changes)


def reference_record(**changes: Any) -> ReferenceRecord:
    """Make the record of a reference that one training made."""
    made = training_record(run_id="r-reference-1", trained_on="the whole corpus")
    return ReferenceRecord(**{"models": {"reference": (made.model,)}, "trainings": (made,)} | changes)


def job_record(**changes: Any) -> JobRecord:
    """Make the record of a job that trains neither before nor after the run."""
    return JobRecord(**dict(run_record()) | changes)
