"""What `davir plan` prints: a plan as lines of text."""

from collections.abc import Iterator

from davir_ray.planning.plan import PlannedView, RunPlan
from davir_ray.progress import duration

REASONS = {
    "first_run": "the first run: nothing of this model is measured yet",
    "new_base": "a new base: nothing of it is measured yet",
    "new_reference": "a new reference: nothing of it is measured yet",
    "new_engine": "another engine, dtype or version: its numbers are not those of the last run",
    "empty_store": "the last run measured this model, and the store holds nothing of it",
    "new_row": "new rows",
    "changed_row": "changed rows: their place held another content in the last run",
    "new_tokens": "a tokens setting changed: the rows are as they were, their token ids are new",
    "not_measured": "rows of the last run that were not measured in this view",
    "new_or_changed": "new or changed rows: the last run left no word of where its rows were",
}


def plan_lines(plan: RunPlan) -> Iterator[str]:
    """Tell what a run would measure and why, what it would reuse, and how long measuring would take."""
    if plan.reference_to_make:
        yield "run       named when its reference is made, which is trained first: that time is not in this plan"
    else:
        done = "finished already: there is nothing to do" if plan.finished else "a plan: nothing was measured"
        yield f"run       {plan.run_id}  ({done})"
    yield f"compared  with {plan.last_run or 'no earlier run: none of this name is finished'}"
    for change in plan.changes:
        yield f"  changed   {change.detail}"
    for view in plan.views:
        yield from _view(view, plan.reference_to_make)
    yield from _time(plan)


def _view(view: PlannedView, to_make: bool) -> Iterator[str]:
    missing = f"{view.missing:,} of {view.rows:,} rows to measure, {view.tokens:,} tokens"
    failed = f", {view.failed:,} known to fail" if view.failed else ""
    reused = view.rows - view.missing - view.failed
    yield f"measure   {view.model}, {view.view}: {missing}; {reused:,} in the store{failed}"
    for reason, count in view.why.items():
        is_reference = to_make and view.model.startswith("reference")
        yield f"  {count:>10,}  {'the reference is not made yet' if is_reference else REASONS[reason]}"


def _time(plan: RunPlan) -> Iterator[str]:
    estimate = plan.estimate
    if not any(plan.measured.values()):
        yield "time      nothing to measure: no model is loaded"
    elif estimate is None:
        yield "time      no estimate: no earlier run of this name measured with this base and engine"
    else:
        gpu = f", {estimate.gpu_hours:,.2f} GPU-hours" if estimate.gpu_hours else ""
        yield f"time      about {duration(estimate.seconds)} of measuring{gpu}, loading models not counted"
        for label, one in estimate.models.items():
            speed = f"{one.tokens_per_second:,.0f} tokens/s an engine, {one.engines} at once"
            yield f"  {label:<11} {duration(one.busy_seconds)} of engines; {speed} ({one.basis})"
