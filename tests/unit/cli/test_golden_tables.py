"""Each closing table as a whole: a record of fixed values in, an exact text out (by rule: test_closing_tables.py)."""

import pytest

from davir_ray.cli.closing_lines import record_lines, resumed_lines
from davir_ray.cli.night_lines import night_lines
from davir_ray.cli.plan_lines import plan_lines
from davir_ray.cli.status import PassStatus, RunStatus, status_lines
from davir_ray.cli.training_lines import reference_lines, run_lines, training_lines
from davir_ray.coreset.summary import DroppedGroups, RankedRow, SourceShare
from davir_ray.drift.result import ScoresCompared
from davir_ray.nightly.nights import Busy
from davir_ray.planning.plan import PlannedView, TimeEstimate
from davir_ray.runs.record import EngineUsed, HeldOut, Overlaps
from davir_ray.train.training_status import TrainingStatus
from tests.records import (
    drift,
    holder,
    job_record,
    night_record,
    reference_record,
    run_plan,
    run_record,
    training_record,
)

NOTHING = TimeEstimate(busy_seconds=0, seconds=0, gpu_hours=0, models={})


def told(lines):
    """Return lines as one text."""
    return "".join(f"{line}\n" for line in lines)


def row(rank, score, dropped_by=None):
    """Make a row of the ranking; its text cannot be read."""
    return RankedRow(
        example_id="00" * 16,
        file="gone.jsonl",
        row=rank - 1,
        score=score,
        num_tokens=10 * rank,
        rank=rank,
        selected=dropped_by is None,
        dropped_by=dropped_by,
    )


RUN = """\
run       r-1  (2.5 s)
rows      12
  ok                          12
measured  base: 12 sequences; 0 were in the store
selected  3 rows, 30 response tokens
left out  9 of 12 ranked rows
  0:count                      9
score     davir; rank correlation with response length not defined
scored    runs/r-1/scored
core-set  runs/r-1/coreset  (parquet)
"""
TRAINING = """\
training  r-sft-1  (12.5 s)
trained   sft on the core-set of r-1: 1,200 rows, 150 steps
settings  learning_rate 2e-05, dtype float32, device cpu, seed 0
held out  loss                    1.5000 before      1.2500 after
metrics   runs/r-sft-1/metrics.jsonl
model     runs/r-sft-1/model
"""
REFERENCE = """\
training  r-reference-1  (12.5 s)
trained   sft on the whole corpus: 1,200 rows, 150 steps
settings  learning_rate 2e-05, dtype float32, device cpu, seed 0
held out  loss                    1.5000 before      1.2500 after
metrics   runs/r-sft-1/metrics.jsonl
model     runs/r-sft-1/model
"""
DRIFT = """\
drift     since r-0: 3 rows are new, 1 are gone, 9 in both
  changed   select: 2 -> 3
core-set  4 -> 3 rows, 2 in both; 60.0% of the rows in either are in one alone
  in           1  new data
  out          1  displaced by others
  out          1  new rule or score setting
ranks     rank correlation +0.9000 over 9 rows that both nights ranked
scores    lowest, deciles 1 to 9, highest
  corpus           before    0.0000    0.5000
  corpus           after     0.2500    0.7500
"""


def test_a_run():
    assert told(record_lines(run_record())) == RUN


def test_a_run_with_all_that_a_table_can_hold():
    record = run_record(
        rows=1_015,
        ranked=1_012,
        ranked_tokens=21_252,
        status={"empty": 1, "ok": 1_012, "too_long": 2},
        measured={"base": 1_000, "reference-0": 400, "reference-1": 600},
        measured_again={"base": 4, "reference-0": 0, "reference-1": 0},
        reused={"base": 12, "reference-0": 0, "reference-1": 12},
        engine=EngineUsed(type="hash", dtype="float32", reason="asked for"),
        sources={
            "poems": SourceShare(rows=12, selected=1, tokens=10, share_before=0.1, share_after=0.3),
            "sums": SourceShare(rows=1_003, selected=2, tokens=20, share_before=0.9, share_after=0.7),
        },
        dropped_by={"0:quota": 1_000, "1:count": 9},
        dropped_groups={
            "0:quota": DroppedGroups(
                by="group", groups={"": 600, "long": 300}, other_groups=2, other_rows=100
            )
        },
        length_correlation=0.5,
        length_correlation_rows=1_012,
        best=(row(1, 0.9),),
        borderline=(row(3, 0.5), row(4, 0.4, "1:count")),
        worst=(row(1_012, -1.25, "0:quota"),),
        coreset={"parquet": "runs/r-1/coreset", "jsonl": "runs/r-1/exports/jsonl"},
    )
    assert told(resumed_lines(record, trains=True)) == (
        """\
run       r-1  (2.5 s)
rows      1,015
  ok                       1,012
  too_long                     2
  empty                        1
measured  base: 1,000 sequences; 12 were in the store; 4 begun again
measured  reference-0: 400 sequences; 0 were in the store
measured  reference-1: 600 sequences; 12 were in the store
engine    hash: the numbers below are made up, for trying a recipe; they say nothing about the rows
selected  3 rows, 30 response tokens
  poems                        1 of 12
  sums                         2 of 1,003
left out  1,009 of 1,012 ranked rows
  0:quota                  1,000
    (no group)               600
    long                     300
    ... 2 more               100
  1:count                      9
score     davir; rank correlation with response length +0.50
length    longer responses score higher (the correlation is beyond 0.3), so choosing by score changes lengths: response\
 tokens a row are 10.0 in the core-set, 21.0 in all ranked rows; rule `length_quota` holds the corpus's
  best           0.9000  rank 1             10 tokens  selected          gone.jsonl:0
  borderline     0.5000  rank 3             30 tokens  selected          gone.jsonl:2
  borderline     0.4000  rank 4             40 tokens  1:count           gone.jsonl:3
  worst         -1.2500  rank 1,012     10,120 tokens  0:quota           gone.jsonl:1011
scored    runs/r-1/scored
unscored  runs/r-1/unscored  (file, row and reason of each row without a rank)
core-set  runs/r-1/coreset  (parquet)
core-set  runs/r-1/exports/jsonl  (jsonl)
train     not by this command: `davir train runs/r-1` trains on the core-set
"""
    )


def test_a_training():
    assert told(training_lines(training_record())) == TRAINING


def test_a_training_on_pairs():
    settings = training_record().settings.model_copy(update={"beta": 10.0})
    figures = {"loss": 0.6931, "rewards/accuracies": 0.5, "rewards/margins": 0.0}
    record = training_record(
        objective="davir_dpo",
        frozen_logps="store",
        settings=settings,
        eval=HeldOut(before=figures, after={"loss": 0.5, "rewards/accuracies": 0.75, "rewards/margins": 1.5}),
    )
    assert told(training_lines(record)) == (
        """\
training  r-sft-1  (12.5 s)
trained   davir_dpo on the core-set of r-1: 1,200 rows, 150 steps
settings  learning_rate 2e-05, dtype float32, device cpu, seed 0, beta 10
frozen    log-probabilities from the store
held out  loss                    0.6931 before      0.5000 after
held out  preference accuracy     0.5000 before      0.7500 after
held out  preference margin       0.0000 before      1.5000 after
metrics   runs/r-sft-1/metrics.jsonl
model     runs/r-sft-1/model
"""
    )


def test_a_training_whose_held_out_rows_are_of_the_target():
    line = "target    1,200 of the held-out rows are rows of the target, 1 nearly"
    record = training_record(overlaps=Overlaps(same=1200, near=1))
    assert line in told(training_lines(record)).splitlines()
    assert told(training_lines(training_record(overlaps=Overlaps()))) == TRAINING


def test_a_reference():
    assert told(reference_lines(reference_record())) == REFERENCE


def test_a_whole_job():
    whole = job_record(reference=reference_record(), train=training_record())
    assert told(run_lines(whole)) == REFERENCE + RUN + TRAINING
    assert told(run_lines(job_record())) == RUN


def test_a_night():
    assert told(night_lines(night_record())) == RUN + DRIFT


def test_a_first_night():
    assert told(night_lines(night_record(drift=None))) == RUN + (
        "drift     none: no night before to compare with\n"
    )


def test_a_night_told_once_more_that_trained_and_went_past_a_limit():
    sentence = "nightly.max_coreset_change: 0.5, and the core-set changed by 0.600"
    compared = drift(
        changes=(),
        rank_correlation=None,
        scores={"new": ScoresCompared(before=None, after=(1.0, 2.0))},
    )
    night = night_record(train=training_record(), drift=compared, past_limits=(sentence,), is_new=False)
    assert told(night_lines(night)) == RUN + TRAINING + (
        """\
night     of 2026-11-28T02:00:00+00:00: nothing is new since
drift     since r-0: 3 rows are new, 1 are gone, 9 in both
core-set  4 -> 3 rows, 2 in both; 60.0% of the rows in either are in one alone
  in           1  new data
  out          1  displaced by others
  out          1  new rule or score setting
ranks     rank correlation not defined over 9 rows that both nights ranked
scores    lowest, deciles 1 to 9, highest
  new              before none
  new              after     1.0000    2.0000
limit     nightly.max_coreset_change: 0.5, and the core-set changed by 0.600
"""
    )


def test_a_night_that_another_start_works_on():
    assert told(night_lines(Busy(busy=holder()))) == (
        "busy      another start is at work since 1970-01-01T00:00:00+00:00 (process 7 on node-3, last heard of "
        "1970-01-01T00:01:00+00:00): nothing to do\n"
    )


def test_a_plan():
    assert told(plan_lines(run_plan())) == (
        """\
run       r-1  (a plan: nothing was measured)
compared  with r-0
  changed   tokens.template: 1 -> 2
measure   base, response: 200 of 1,200 rows to measure, 9,000 tokens; 997 in the store, 3 known to fail
         150  new rows
          50  changed rows: their place held another content in the last run
time      about 1m 30s of measuring, 0.50 GPU-hours, loading models not counted
  base        1m 30s of engines; 100 tokens/s an engine, 1 at once (1 earlier passes of this model by vllm in bfloat16)
"""
    )


def test_a_first_plan_whose_reference_is_to_be_made():
    views = tuple(
        PlannedView(model=model, view="response", rows=12, missing=12, tokens=90, failed=0, why=why)
        for model, why in (("base", {"first_run": 12}), ("reference-0", {"first_run": 12}))
    )
    plan = run_plan(
        run_id=None,
        run_dir=None,
        last_run=None,
        to_make=("reference",),
        changes=(),
        views=views,
        estimate=None,
    )
    assert told(plan_lines(plan)) == (
        """\
run       named when its reference is made, which is trained first: that time is not in this plan
compared  with no earlier run: none of this name is finished
measure   base, response: 12 of 12 rows to measure, 90 tokens; 0 in the store
          12  the first run of this name, and the store has none of them under this model, engine and target
measure   reference-0, response: 12 of 12 rows to measure, 90 tokens; 0 in the store
          12  the reference is not made yet
time      no estimate: no earlier run of this name measured the same with this base and engine
"""
    )


def test_a_plan_of_a_finished_run():
    plan = run_plan(finished=True, changes=(), measured={"base": 0}, views=(), estimate=NOTHING)
    assert told(plan_lines(plan)) == (
        """\
run       r-1  (finished already: there is nothing to do)
compared  with r-0
time      nothing to measure: no model is loaded
"""
    )


def test_a_plan_of_another_target_over_stored_gradients():
    measured = {"warmup-projected_step": 0}
    estimate = NOTHING.model_copy(update={"not_priced": ("target",)})
    plan = run_plan(finished=False, changes=(), measured=measured, views=(), estimate=estimate)
    assert told(plan_lines(plan)) == (
        """\
run       r-1  (a plan: nothing was measured)
compared  with r-0
time      no row of the corpus to measure
  not priced  the target's rows: `--probe` finds out on a few rows
"""
    )


@pytest.fixture
def found(tmp_path):
    """A finished run, one that is measuring, and a training, as files tell of them."""
    planned = {"sequences_planned": 900, "tokens_planned": 9_000}
    speed = {"newest_part": 10.0, "rate": 50.0, "seconds_left": 80.0}
    passes = {
        "base": PassStatus(sequences=500, tokens=5_000, **planned, **speed),
        "reference": PassStatus(sequences=0, tokens=0, **planned),
    }
    done = {"stage": "finished", "age": 3600.0, "passes": {}, "record": run_record(), "finished": True}
    going = {"stage": "measure base", "age": 30.0, "passes": passes, "record": None, "finished": False}
    early = {"step": 5, "logged": {"loss": 1.25}, "record": None, "finished": False}
    late = {"step": 12, "logged": {"loss": 1.0}, "record": training_record(), "finished": True}
    return [
        *(run_status(tmp_path, name, **some) for name, some in (("r-1", done), ("r-2", going))),
        *(training_at(tmp_path, name, **some) for name, some in (("r-sft-1", early), ("r-sft-2", late))),
    ]


def run_status(folder, name, **values):
    """Make how far a run is."""
    return RunStatus(run_id=name, folder=f"{folder}/{name}", resume=f"davir resume runs/{name}", **values)


def training_at(folder, name, **values):
    """Make how far a training of twelve steps is."""
    return TrainingStatus(run_id=name, folder=f"{folder}/{name}", max_steps=12, age=2.0, **values)


def test_the_status_of_many(found, tmp_path):
    assert told(status_lines(found, str(tmp_path))) == (
        """\
r-1      finished    1h 00m ago  3 of 12 rows selected
r-2      unfinished  30s ago     measure base, base 56%, reference 0%
r-sft-1  unfinished  2s ago      step 5 of 12, loss 1.25
r-sft-2  finished    2s ago      step 12 of 12, loss 1
"""
    )


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (
            0,
            """\
run       r-1  (finished)
stage     finished; last event 1h 00m ago
rows      12; 3 selected
base      12 sequences measured; 0 were in the store
""",
        ),
        (
            1,
            """\
run       r-2  (unfinished)
stage     measure base; last event 30s ago
base      500 of 900 sequences, 5,000 of 9,000 tokens (56%); 50 tokens/s, 1m 20s left; last part 10s ago
reference 0 of 900 sequences, 0 of 9,000 tokens (0%)
resume    davir resume runs/r-2
""",
        ),
        (
            2,
            """\
training  r-sft-1  (unfinished)
progress  step 5 of 12, loss 1.25; 2s ago
resume    the command that began it goes on with it
""",
        ),
        (
            3,
            """\
training  r-sft-2  (finished)
progress  step 12 of 12, loss 1; 2s ago
model     runs/r-sft-1/model
""",
        ),
    ],
)
def test_the_status_of_one(found, index, text):
    assert told(status_lines(found[index : index + 1], found[index].folder)) == text
