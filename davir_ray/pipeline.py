"""The main job, in the order of the data.

    corpus -> reference -> tokens -> measurements (base, reference) -> scores -> global rank -> core-set -> model

`score` is the part from tokens to core-set; `run_all` is all of it. The stages are in job/ and train/steps.py.
"""

from functools import partial
from time import monotonic

from davir_ray import storage
from davir_ray.inputs import anchored, check_inputs
from davir_ray.job import (
    Job,
    aim,
    counts,
    facts,
    measure_models,
    open_job,
    prepare_corpus,
    rank_corpus,
    select_and_export,
)
from davir_ray.measure.ray_room import await_engine
from davir_ray.progress import say
from davir_ray.recipe import Recipe
from davir_ray.report.page import try_to_write_report
from davir_ray.runs.history import models_measured
from davir_ray.runs.lease import Lease, leased
from davir_ray.runs.locations import write_places
from davir_ray.runs.record import JobRecord, RunRecord
from davir_ray.runs.run import Run
from davir_ray.runs.trackers import reporting
from davir_ray.store.mending import mended
from davir_ray.target.ray_overlap import overlaps_with


def score(
    recipe: Recipe,
    name: str,
    *,
    may_measure: bool = True,
    resumed: str | None = None,
    writes_page: bool = True,
) -> RunRecord:
    """Measure what is missing, score, rank, select and export; return the record of the run.

    A run that is finished is not done again. With `may_measure` off, missing measurements raise `NotMeasured`
    and no model is loaded; so it is with models that the recipe knows by their identity alone. resumed: the id that
    the run must have; with another, `RecipeError`. writes_page: off for a night, whose page tells of its drift too.
    """
    started = monotonic()
    may_measure = may_measure and recipe.models.are_here
    measured_under = None if may_measure else partial(models_measured, anchored(recipe), name)
    job = open_job(check_inputs(recipe, measured_under=measured_under), name, resumed)
    if (record := job.run.record(RunRecord)) is not None:
        return finished(job.run, record, writes_page)
    if may_measure:
        await_engine(job.inputs.recipe.engine, job.choice)
    with leased(job.run.paths.lease, f"run {job.run.run_id}") as lease:
        if (record := job.run.reopen(RunRecord)) is not None:  # another start was at work, and is done
            return finished(job.run, record, writes_page)
        job.run.read_events()
        work = partial(score_job, job, lease, may_measure, started)
        with reporting(job.run, job.inputs.recipe) as told:
            record = mended(work, job.prepared, job.stores, job.run.forget_work)
            lease.check()
            told.record(record)  # first: a run that is finished is not opened again
            record = job.run.finish(record)
    if writes_page:
        try_to_write_report(job.run.folder)
    return record


def score_job(job: Job, lease: Lease, may_measure: bool, started: float) -> RunRecord:
    """Do all of a run but write its record, which is returned. The lease is looked at before results are cleared.

    started: reading of the monotonic clock when the command began.
    """
    prepare_corpus(job)
    write_places(job.run, job.prepared, job.inputs.listing.splits)
    few_shot = job.inputs.few_shot
    overlaps = few_shot and overlaps_with(job.prepared, job.inputs.listing, few_shot, "the corpus")
    plans = measure_models(job, may_measure)
    target = aim(job, may_measure)
    lease.check()
    ranked = rank_corpus(job, target)
    made, counted, chosen = facts(job), counts(plans, job.run.events), select_and_export(job, ranked)
    seconds = round(monotonic() - started, 1)
    return RunRecord(**dict(made), **dict(counted), **dict(chosen), overlaps=overlaps, seconds=seconds)


def finished(run: Run, record: RunRecord, writes_page: bool) -> RunRecord:
    """Return the record of a run that is finished, as one that measures nothing."""
    say(f"finished already: {run.folder}")
    run.tidy()  # it may have been killed between its record and this, or before its page
    if writes_page and not storage.exists(run.paths.report):
        try_to_write_report(run.folder)
    every = {label: count + record.reused[label] for label, count in record.measured.items()}
    none = dict.fromkeys(every, 0)
    return record.model_copy(update={"measured": none, "measured_again": none, "reused": every})


def run_all(recipe: Recipe, name: str, *, writes_page: bool = True) -> JobRecord:
    """Make the models to measure under, score, select and train, as far as the recipe asks; nothing is done again.

    A run that chose nothing ends there: there is nothing to train on. Each of the three resolves its inputs once, when
    it begins: a listing names prepared rows by the sizes and times of files, and would be hours old by the next.
    """
    from davir_ray.train import steps  # only here is training code loaded

    steps.check_trainings(recipe)
    reference = None
    if recipe.makes:
        reference, recipe = steps.make_models(recipe, name)
    record = score(recipe, name, writes_page=writes_page)
    trains = recipe.train is not None and record.selected
    trained = steps.train(recipe, name) if trains else None
    return JobRecord(**dict(record), reference=reference, train=trained)
