from davir_ray.cli.night_lines import CAME, WENT, busy_lines, drift_lines
from davir_ray.cli.plan_lines import REASONS, plan_lines
from davir_ray.drift.result import CoreSetsCompared, ScoresCompared
from davir_ray.planning.reasons import Reason
from tests.records import drift, holder, run_plan

SCORES = {f"s{i:02d}": ScoresCompared(before=None, after=(0.5,) * 11) for i in range(22)}


def test_a_plan_tells_counts_reasons_and_time():
    text = "\n".join(plan_lines(run_plan()))
    assert (
        "base, response: 200 of 1,200 rows to measure, 9,000 tokens; 997 in the store, 3 known to fail"
        in text
    )
    assert "150  new rows" in text
    assert "changed   tokens.template: 1 -> 2" in text
    assert "about 1m 30s of measuring, 0.50 GPU-hours" in text


def test_a_plan_tells_what_it_has_no_price_for():
    first = run_plan(measured={"warmup-0-rose": 0})
    nothing = first.estimate.model_copy(update={"models": {}, "not_priced": ()})
    untold = nothing.model_copy(update={"not_priced": ("warmup", "target")})
    lines = list(plan_lines(first.model_copy(update={"estimate": untold})))
    assert lines[-2:] == [
        "time      no row of the corpus to measure",
        "  not priced  the warm-up and the target's rows: `--probe` finds out on a few rows",
    ]
    done = list(plan_lines(first.model_copy(update={"estimate": nothing})))
    assert done[-1] == "time      nothing to measure: no model is loaded"
    known = first.estimate.model_copy(update={"not_priced": ("target",)})
    cheap = list(plan_lines(run_plan(estimate=known)))
    assert cheap[-1] == "  not priced  the target's rows"  # of forward passes a probe tells nothing


def test_every_reason_and_cause_has_words():
    from davir_ray.drift.causes import Cause

    assert set(REASONS) == {str(reason) for reason in Reason}
    assert set(CAME) == set(WENT) == {str(cause) for cause in Cause}


def test_a_correlation_of_a_sample_says_so():
    text = "\n".join(drift_lines(drift(ranked_in_both=250_000, rank_correlation_rows=100_000)))
    assert "over a sample of 100,000 of the 250,000 rows that both nights ranked" in text


def test_a_drift_tells_causes_ranks_and_scores():
    core_set = CoreSetsCompared(before=3, after=4, both=2, change=0.6, came={"data": 2}, went={"others": 1})
    changed = drift(
        core_set=core_set, rank_correlation=None, rank_correlation_rows=1, ranked_in_both=1, scores=SCORES
    )
    text = "\n".join(drift_lines(changed))
    assert "3 rows are new, 1 are gone, 9 in both" in text
    assert "3 -> 4 rows, 2 in both; 60.0% of the rows in either are in one alone" in text
    assert "2  new data" in text
    assert "1  displaced by others" in text
    assert "rank correlation not defined over 1 rows" in text
    assert "before none" in text
    assert "2 more sources in drift.json" in text
    assert "s20" not in text


def test_a_holder_is_named_with_its_times():
    (line,) = busy_lines(holder())
    assert (
        "since 1970-01-01T00:00:00+00:00 (process 7 on node-3, last heard of 1970-01-01T00:01:00+00:00)"
        in line
    )
