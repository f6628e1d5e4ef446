"""A night: run what the recipe asks, compare with the night before, write a line, judge.

Started again on the same corpus, models and recipe, it finds its run finished and its line written, and tells the same
once more. Started while another start is at work, it says so and does nothing.
"""

from davir_ray import pipeline, storage
from davir_ray.config import NightlyConfig
from davir_ray.drift.ray_drift import measure_drift
from davir_ray.drift.result import Drift
from davir_ray.errors import DamagedPart, StoreError
from davir_ray.inputs import anchored
from davir_ray.nightly.limits import past_limits
from davir_ray.nightly.nights import Busy, NightLine, NightRecord, Nights, night_of
from davir_ray.progress import warn
from davir_ray.recipe import Recipe
from davir_ray.report.page import try_to_write_report
from davir_ray.runs.history import PastRun, past_run
from davir_ray.runs.lease import Lease, take
from davir_ray.runs.record import RunRecord
from davir_ray.storage.damage import set_aside
from davir_ray.storage.layout import OutputLayout, RunLayout
from davir_ray.storage.sealed import read_sealed, write_sealed
from davir_ray.storage.typed import parsed


def run_night(recipe: Recipe, name: str) -> NightRecord | Busy:
    """Run a night; return its record, or who is at work if another start is."""
    recipe = anchored(recipe)
    nights = Nights(OutputLayout(recipe.output).nights(name))
    lease = take(nights.lease_folder)
    if not isinstance(lease, Lease):
        return Busy(busy=lease)
    with lease:
        record = _run(recipe, name)
        run = past_run(OutputLayout(recipe.output).run(record.run_id))
        if run is None:
            raise StoreError(f"{record.run_dir}: the run is gone since it was finished")
        night, drift, is_new = _close(nights, run, lease, recipe.nightly)
    if is_new or not storage.exists(RunLayout(run.folder).report):
        try_to_write_report(run.folder)
    limits = past_limits(recipe.nightly, night)
    return NightRecord(**dict(record), night=night, drift=drift, past_limits=limits, is_new=is_new)


def _run(recipe: Recipe, name: str) -> RunRecord:
    """Do all that the recipe asks for; what is done is not done again."""
    if not recipe.makes and recipe.train is None:
        return pipeline.score(recipe, name, writes_page=False)
    return pipeline.run_all(recipe, name, writes_page=False)


def _close(
    nights: Nights, run: PastRun, lease: Lease, limits: NightlyConfig
) -> tuple[NightLine, Drift | None, bool]:
    """Compare a run with the night before, and write both down; or find the night that did."""
    earlier = nights.read()
    uri = RunLayout(run.folder).drift
    if earlier and earlier[-1].run_id == run.run_id:
        drift = _drift_of(earlier, run) if earlier[-1].drift else None
        return earlier[-1], drift, False
    drift = _drift_since(earlier, run)
    lease.check()
    if drift is not None:
        write_sealed(uri, drift.tree())
    done_before = any(night.run_id == run.run_id for night in earlier)
    night = night_of(run.record, drift, measured_before=done_before)
    night = night.model_copy(update={"past_limits": past_limits(limits, night)})
    nights.add(night)
    return night, drift, True


def _drift_of(nights: list[NightLine], run: PastRun) -> Drift | None:
    """Read the drift of the latest night; measure it again if it is damaged."""
    uri = RunLayout(run.folder).drift
    try:
        return parsed(Drift, read_sealed(uri), uri)
    except FileNotFoundError:
        set_aside(DamagedPart(uri, "is gone"))
    except DamagedPart as damage:
        set_aside(damage)
    if (drift := _drift_since(nights[:-1], run)) is not None:
        write_sealed(uri, drift.tree())
    return drift


def _drift_since(earlier: list[NightLine], run: PastRun) -> Drift | None:
    """Compare with the latest night whose run is still there, and whole."""
    output = run.folder.rsplit("/", 1)[0]
    for night in reversed(earlier):
        before = past_run(OutputLayout(output).run(night.run_id))
        drift = None if before is None else _drift_between(before, run)
        if drift is not None:
            return drift
        warn(f"the run of the night of {night.time} is gone: {night.run_id}")
    return None


def _drift_between(before: PastRun, run: PastRun) -> Drift | None:
    """Compare two nights; None if results of the earlier one are damaged. Raises `StoreError` for those of this one."""
    try:
        return measure_drift(before, run)
    except DamagedPart as error:
        damage = getattr(error, "cause", error)  # what crossed from a Ray worker has the error in it
    set_aside(damage)  # with that, its run is no finished one
    if damage.uri.startswith(f"{run.folder}/"):
        raise StoreError(f"{damage}; the same command makes it again")
    return None
