"""The plan of a recipe: what a run would measure, for each model and view, and why the store does not hold it.

Reads and tokenises the corpus, as the run would, and looks into the store. No accelerator is claimed, and no run begun.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from davir_ray import storage
from davir_ray.cluster import ray_session
from davir_ray.config import ModelConfig
from davir_ray.ids import Keys, keys_of
from davir_ray.inputs import check_inputs
from davir_ray.job import Job, engine_for, facts, job_of, name_run, tokenise
from davir_ray.measure.kind import Aimed
from davir_ray.measure.measurement import Measurement
from davir_ray.measure.ray_measure import engine_cpus, engine_gpus, engine_replicas
from davir_ray.measure.ray_pass_plan import asked_of, failed_keys, look_up_held
from davir_ray.planning.estimate import (
    Pass,
    PastPass,
    Speed,
    estimate,
    passes,
    speed_of,
    target_estimate,
    total,
    warmup_estimate,
)
from davir_ray.planning.plan import PassEstimate, PlannedView, RunPlan, TimeEstimate, Unpriced
from davir_ray.planning.ray_probe import Probed, probe
from davir_ray.planning.reasons import Reason, model_reason, row_reasons
from davir_ray.recipe import Recipe
from davir_ray.runs.changes import Change, changes
from davir_ray.runs.history import PastRun, past_runs
from davir_ray.runs.locations import Places, read_places
from davir_ray.runs.record import Facts, RunRecord
from davir_ray.runs.run import Run
from davir_ray.schema import Role, View, is_of_view, role_of
from davir_ray.scores.score import OF_GRADIENTS
from davir_ray.storage.layout import StoreLayout
from davir_ray.store.measurements import MeasurementStore
from davir_ray.store.mending import mended


@dataclass(frozen=True)
class Asked:
    """What one model measures in one view. Rows count once, however often the corpus has them.

    tokens: all ids of the missing rows. failed: rows that are known to make every engine fail.
    """

    view: View
    rows: int
    missing: int
    tokens: int
    failed: int
    why: Counter[Reason]

    def __add__(self, other: "Asked") -> "Asked":
        """Put two parts of the corpus together."""
        names = ("rows", "missing", "tokens", "failed")
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Asked(view=self.view, why=self.why + other.why, **sums)


def preview(recipe: Recipe, name: str, *, probing: bool = False) -> RunPlan:
    """Tell what a run would measure and why, what it would find in the store, and how long measuring would take.

    probing: find out on a few rows how fast gradients go, which takes what an engine does.
    """
    job, to_make = _job(recipe, name)
    past = past_runs(
        job.inputs.recipe.output, name
    )  # first: an output that fails is told of before hours of work
    return mended(partial(_preview, job, past, to_make, probing), job.prepared, job.stores)


def _preview(job: Job, past: Sequence[PastRun], to_make: tuple[Role, ...], probing: bool) -> RunPlan:
    tokenise(job)
    made = facts(job)
    last = past[-1] if past else None
    changed = _changes(last, made, job.inputs.recipe)
    if to_make:  # the base stood in for them, and named the run
        models = {label: one for label, one in made.models.items() if role_of(label) not in to_make}
        made = made.model_copy(update={"run_id": None, "run_dir": None, "models": models})
        changed = tuple(change for change in changed if change.what not in (*to_make, "prior"))
    places = read_places(last.folder) if last else None
    asked = {one.label: _ask(job, one, last, places, changed) for one in job.measurements}
    probed = probe(job) if probing else None
    return RunPlan(
        **dict(made),
        last_run=last.run_id if last else None,
        finished=not to_make and job.run.record(RunRecord) is not None,
        to_make=to_make,
        changes=changed,
        measured={label: sum(one.missing for one in views) for label, views in asked.items()},
        reused={label: sum(one.rows - one.missing for one in views) for label, views in asked.items()},
        tokens={label: sum(one.tokens for one in views) for label, views in asked.items()},
        views=tuple(_planned(label, one) for label, views in asked.items() for one in views),
        estimate=_estimate(job, asked, past, probed, warms_up="warmup" in to_make),
    )


def _job(recipe: Recipe, name: str) -> tuple[Job, tuple[Role, ...]]:
    """Put a job together that has begun nothing; name the models that are still to be made."""
    to_make: tuple[Role, ...] = ()
    begins_there = {role: one.start for role, one in recipe.references.items()}
    if recipe.makes:
        from davir_ray.train.steps import made_so_far

        recipe, to_make = made_so_far(recipe, name)
        recipe = _with_stand_ins(recipe)
    inputs = check_inputs(recipe)
    ray_session.connect()
    choice = engine_for(inputs)
    run = Run.in_output(inputs.recipe.output, name_run(inputs, choice, name))
    absent: set[str] = {*to_make}
    if begins_there.get("target") in absent:
        absent.add("prior")
    return _without(job_of(inputs, run, choice), absent), to_make


def _with_stand_ins(recipe: Recipe) -> Recipe:
    """Let the base stand in for the models that trainings will make: the rows and tokens are the same."""
    for role in recipe.makes:
        update: dict[str, Any] = {role: _times(recipe.models.base, _how_many(recipe, role))}
        reference = recipe.references.get("target")
        if role == "target" and reference is not None and reference.start != "base":
            update["prior"] = _times(recipe.models.base, _how_many(recipe, role))
        recipe = recipe.model_copy(update={"models": recipe.models.model_copy(update=update)})
    return recipe.model_copy(update={"references": {}})


def _how_many(recipe: Recipe, role: Role) -> int:
    """Tell how many models of a role there will be."""
    if role == "warmup":
        return recipe.warmup.epochs
    reference = recipe.references["target" if role == "target" else "reference"]
    return reference.folds if reference.fit == "cross" else len(recipe.models.all_of(reference.start))


def _times(base: ModelConfig, count: int) -> ModelConfig | tuple[ModelConfig, ...]:
    return base if count == 1 else (base,) * count


def _without(job: Job, roles: Collection[str]) -> Job:
    """Let the store hold nothing of some roles."""
    folder = StoreLayout(job.inputs.recipe.store).measurements_of("to-be-made")
    return replace(
        job,
        measurements=tuple(
            replace(one, stores=(MeasurementStore(folder, one.kind),)) if role_of(one.model) in roles else one
            for one in job.measurements
        ),
    )


def _changes(last: PastRun | None, made: Facts, recipe: Recipe) -> tuple[Change, ...]:
    if last is None:
        return ()
    return changes(last.record, made, last.recipe, recipe.model_dump(mode="json"))


def _ask(
    job: Job, one: Measurement, last: PastRun | None, places: Places | None, changed: tuple[Change, ...]
) -> list[Asked]:
    """Look up what one model has to measure; one entry a view."""
    found = look_up_held(one)
    paths = [split.path for split in job.inputs.listing.splits]
    ask = ray.remote(ask_split)
    reason = None
    if not any(store.parts() for store in one.stores):
        reason = model_reason(one.model, one.label, one.store.folder, last.record if last else None, changed)
    failed = ray.put(failed_keys(one))
    refs = [
        ask.remote(one, split, table, failed, paths[split], places, reason, changed)
        for split, table in enumerate(found)
    ]
    asked: list[list[Asked]] = ray.get(refs)
    return [sum(parts[1:], parts[0]) for parts in zip(*asked, strict=True)]


def ask_split(
    measurement: Measurement,
    split: int,
    found: pa.Table,
    failed: Keys,
    path: str,
    places: Places | None,
    reason: Reason | None,
    changed: Sequence[Change],
) -> list[Asked]:
    """Count what one split asks for, by view. reason: one that holds for all rows."""
    table = asked_of(measurement, split, found, failed)
    examples = measurement.prepared.examples(split)
    result = []
    for view in measurement.views:
        rows = table.filter(is_of_view(table, view))
        missing = rows.filter(rows["missing"])
        where = examples.take(missing["example"])
        if reason is not None:
            why = Counter({reason: len(missing)} if len(missing) else {})
        else:
            then = None if places is None else places.contents(path, where["row"].to_numpy())
            why = row_reasons(keys_of(where["example_id"]), then, changed)
        tokens = sum(missing["length"].to_pylist())
        result.append(Asked(view, len(rows), len(missing), tokens, _failed(rows, found), why))
    return result


def _failed(rows: pa.Table, found: pa.Table) -> int:
    """Count the rows that the store has no measurement of, and that are not to be measured."""
    absent = pc.is_in(rows["position"], found.filter(pc.invert(found["held"]))["position"])
    return int(pc.sum(pc.and_not(absent, rows["missing"])).as_py() or 0)


def _planned(label: str, one: Asked) -> PlannedView:
    return PlannedView(
        model=label,
        view=str(one.view),
        rows=one.rows,
        missing=one.missing,
        tokens=one.tokens,
        failed=one.failed,
        why={str(reason): count for reason, count in sorted(one.why.items())},
    )


def _estimate(
    job: Job, asked: dict[str, list[Asked]], past: Sequence[PastRun], probed: Probed | None, *, warms_up: bool
) -> TimeEstimate | None:
    """Estimate the time of what is missing; None where neither an earlier run nor a probe tells how fast this goes."""
    speed = partial(_speed, job, [one for run in past for one in passes(run)], probed)
    parts: dict[str, PassEstimate | None] = {}
    for one in job.measurements:
        if tokens := sum(view.tokens for view in asked[one.label]):
            parts[one.label] = _priced(one, tokens, speed(one))
    left = _passes_of_target(job)
    prices = {
        "warmup": _warmup(job, probed.training) if warms_up and probed else None,
        "target": _target(job, left, speed(left[0])) if left else None,
    }
    to_do: dict[Unpriced, bool] = {"warmup": warms_up, "target": bool(left)}
    not_priced = tuple(name for name, is_left in to_do.items() if is_left and prices[name] is None)
    return total(parts, **prices, not_priced=not_priced)


def _speed(job: Job, known: Sequence[PastPass], probed: Probed | None, one: Measurement) -> Speed | None:
    """Learn how fast a pass goes."""
    base = tuple(model.identity for model in job.inputs.models["base"])
    asked = Pass(one.store.folder, one.kind.name, (job.choice.type, job.choice.dtype), base)
    return speed_of(asked, known, probed.measuring if probed and one.kind.name in OF_GRADIENTS else None)


def _priced(one: Measurement, tokens: int, speed: Speed | None) -> PassEstimate | None:
    if speed is None:
        return None
    return estimate(tokens, speed, engines=engine_replicas(one, engine_cpus(one)), gpus=engine_gpus(one))


def _warmup(job: Job, speed: Speed) -> PassEstimate:
    sequences = (job.prepared.sequences(split, [View.RESPONSE]) for split in range(job.prepared.splits))
    tokens = sum(sum(table["length"].to_pylist()) for table in sequences)
    gpus = max(map(engine_gpus, job.measurements))
    return warmup_estimate(tokens, job.inputs.recipe.warmup, speed, gpus=min(gpus, 1))


def _target(job: Job, left: Sequence[Measurement], speed: Speed | None) -> PassEstimate | None:
    few_shot = job.inputs.few_shot
    if speed is None or few_shot is None:
        return None
    return target_estimate(few_shot, len(left), speed, gpus=engine_gpus(left[0]))


def _passes_of_target(job: Job) -> list[Measurement]:
    """Return the passes that measure the target's rows, too, and have not yet."""
    few_shot = job.inputs.few_shot
    if few_shot is None:
        return []
    asked = {need[:2] for need in job.inputs.score.of_target}
    files = [(one, one.directions_uri) for one in job.measurements if isinstance(one.kind, Aimed)]
    files += [
        (one, one.vectors_uri(few_shot.target.digest))
        for one in job.measurements
        if (one.kind.name, role_of(one.model)) in asked
    ]
    return [one for one, uri in files if not storage.exists(uri)]
