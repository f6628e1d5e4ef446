"""What `davir plan` prints: a plan as lines of text."""

from collections.abc import Iterator, Sequence

from davir_ray.planning.plan import PlannedView, RunPlan, TimeEstimate, Unpriced
from davir_ray.progress import duration
from davir_ray.schema import kind_of, role_of
from davir_ray.scores.score import OF_GRADIENTS

REASONS = {
    "first_run": "the first run of this name, and the store has none of them under this model, engine and target",
    "new_base": "a new base: nothing of it is measured yet",
    "new_reference": "a new reference: nothing of it is measured yet",
    "new_warmup": "a new warm-up: nothing of its checkpoints is measured yet",
    "new_target_model": "a new model of the target, or another that it began from: nothing of it is measured yet",
    "new_target": "another target: rows are measured again, against its gradients",
    "new_engine": "another engine, dtype or version: its numbers are not those of the last run",
    "empty_store": "the last run measured this model, and the store holds nothing of it",
    "new_row": "new rows",
    "changed_row": "changed rows: their place held another content in the last run",
    "new_tokens": "a tokens setting changed: the rows are as they were, their token ids are new",
    "not_measured": "rows of the last run that were not measured in this view",
    "new_or_changed": "new or changed rows: the last run left no word of where its rows were",
}

PROBE = "`--probe` finds out on a few rows"
WORDS: dict[Unpriced, str] = {"warmup": "the warm-up", "target": "the target's rows"}


def plan_lines(plan: RunPlan) -> Iterator[str]:
    """Tell what a run would measure and why, what it would reuse, and how long measuring would take."""
    if plan.to_make:
        yield f"run       {_named_when(plan)}"
    else:
        done = "finished already: there is nothing to do" if plan.finished else "a plan: nothing was measured"
        yield f"run       {plan.run_id}  ({done})"
    yield f"compared  with {plan.last_run or 'no earlier run: none of this name is finished'}"
    for change in plan.changes:
        yield f"  changed   {change.detail}"
    for view in plan.views:
        yield from _view(view, plan.to_make)
    yield from _time(plan)


def _named_when(plan: RunPlan) -> str:
    counted = plan.estimate is not None and plan.estimate.warmup is not None
    absent = [role for role in plan.to_make if not (role == "warmup" and counted)]
    names, verb = " and ".join(plan.to_make), "is" if len(plan.to_make) == 1 else "are"
    left_out = f": that time is not in this plan ({' and '.join(absent)})" if absent else ""
    if plan.to_make == ("reference",):
        left_out = ": that time is not in this plan"
    return f"named when its {names} {verb} made, which {verb} trained first{left_out}"


def _view(view: PlannedView, to_make: Sequence[str]) -> Iterator[str]:
    missing = f"{view.missing:,} of {view.rows:,} rows to measure, {view.tokens:,} tokens"
    failed = f", {view.failed:,} known to fail" if view.failed else ""
    reused = view.rows - view.missing - view.failed
    yield f"measure   {view.model}, {view.view}: {missing}; {reused:,} in the store{failed}"
    for reason, count in view.why.items():
        role = role_of(view.model)
        yield f"  {count:>10,}  {f'the {role} is not made yet' if role in to_make else REASONS[reason]}"


def _time(plan: RunPlan) -> Iterator[str]:
    estimate = plan.estimate
    if estimate is None:
        yield (
            "time      no estimate: no earlier run of this name measured the same with this base and engine"
            + (f"; {PROBE}" if _takes_gradients(plan) else "")
        )
        return
    if not estimate.models and not estimate.warmup and not estimate.target:
        yield f"time      {_nothing(estimate)}"
    else:
        gpu = f", {estimate.gpu_hours:,.2f} GPU-hours" if estimate.gpu_hours else ""
        yield f"time      about {duration(estimate.seconds)} of measuring{gpu}, loading models not counted"
        yield from _parts(estimate)
    if estimate.not_priced:
        names = " and ".join(WORDS[one] for one in estimate.not_priced)
        yield f"  not priced  {names}" + (f": {PROBE}" if _takes_gradients(plan) else "")


def _parts(estimate: TimeEstimate) -> Iterator[str]:
    """Tell of each thing that is priced, in the order in which they are done."""
    first = {"warm-up": estimate.warmup, "target": estimate.target}
    for label, one in {**first, **estimate.models}.items():
        if one is not None:
            speed = f"{one.tokens_per_second:,.0f} tokens/s an engine, {one.engines} at once"
            yield f"  {label:<11} {duration(one.busy_seconds)} of engines; {speed} ({one.basis})"


def _nothing(estimate: TimeEstimate) -> str:
    """Say that no row of the corpus is to be measured."""
    if estimate.not_priced:
        return "no row of the corpus to measure"
    return "nothing to measure: no model is loaded"


def _takes_gradients(plan: RunPlan) -> bool:
    return any(kind_of(label) in OF_GRADIENTS for label in plan.measured)
