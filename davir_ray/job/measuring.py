"""The stages that prepare the corpus and measure it under each model."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from time import monotonic

from davir_ray import storage
from davir_ray.cluster import ray_session
from davir_ray.cluster.unexpected import stage
from davir_ray.corpus.formats import FORMATS
from davir_ray.errors import CorpusError, NotMeasured, UnreadableFile
from davir_ray.job.job import Job
from davir_ray.measure.in_turn import in_turn
from davir_ray.measure.kind import shared
from davir_ray.measure.measurement import Measurement, Plan, Work
from davir_ray.measure.ray_measure import measure
from davir_ray.measure.ray_meter import Meter
from davir_ray.measure.ray_pass_plan import chunks_left, count_interrupted, plan
from davir_ray.measure.ray_room import await_engine
from davir_ray.measure.ray_target import lay_directions
from davir_ray.progress import say, warn
from davir_ray.store.ray_prepare import Preparation, prepare


def prepare_corpus(job: Job) -> None:
    """Note it, prepare the corpus, and say what of it is not read."""
    job.run.event("prepare", splits=len(job.inputs.listing.splits))
    tokenise(job)
    for source, found in job.not_read.items():
        obeyed = FORMATS[job.inputs.listing.formats[source]].columns
        say(f"not read of {source}: {found.shown(obeyed)}")


@stage(CorpusError)
def tokenise(job: Job) -> None:
    """Read, parse and tokenise the splits that are not prepared yet."""
    inputs = job.inputs
    preparation = Preparation(
        corpus=inputs.recipe.corpus,
        tokens=inputs.recipe.tokens,
        views=inputs.views,
        formats=inputs.listing.formats,
        tokenizer=inputs.tokenizer,
        prepared=job.prepared,
        splits=inputs.listing.splits,
    )
    prepare(preparation, workers=max(ray_session.cluster_cpus(), inputs.recipe.engine.replicas or 1))
    if job.prepared.bad() and inputs.recipe.corpus.on_bad_file == "error":
        raise UnreadableFile(*job.prepared.bad().values())
    for reason in bad_files(job).values():
        warn(f"skipped {reason}")


def bad_files(job: Job) -> dict[str, str]:
    """The files that could not be read, found when they were listed or when they were read."""
    listing = job.inputs.listing
    found = {listing.splits[index].path: reason for index, reason in job.prepared.bad().items()}
    return {bad.path: bad.reason for bad in listing.bad_files} | found


def measure_models(job: Job, may_measure: bool) -> dict[str, Plan]:
    """Measure what the store lacks, one model after the other over the whole cluster."""
    plans: dict[str, Plan] = {}
    for passes in in_turn(job.measurements, partial(_switches, job)):
        works = [_work(job, one, may_measure) for one in passes]
        measure(works, partial(_turn, job))
        plans |= {work.measurement.label: work.planned for work in works}
    return {one.label: plans[one.label] for one in job.measurements}


def _switches(job: Job, one: Measurement, other: Measurement) -> bool:
    """Tell whether the engine that measures one pass can be switched to another."""
    kind = shared(one.kind)
    models = (job.model_of(one), job.model_of(other))
    return kind is not None and kind.can_switch(job.choice, job.inputs.recipe.engine, *models)


def _work(job: Job, measurement: Measurement, may_measure: bool) -> Work:
    """Plan one pass; return what is left of it. Raises `NotMeasured`."""
    anew = not storage.exists(measurement.plan_uri)
    planned = plan(measurement)
    if planned.missing and not may_measure:
        raise NotMeasured(_not_measured(job, measurement.label, planned))
    todo = chunks_left(measurement, planned)
    return Work(measurement, planned, todo, anew, count_interrupted(measurement, todo))


@contextmanager
def _turn(job: Job, work: Work) -> Iterator[Meter]:
    """Note that a pass has its turn, and that it is measured; meanwhile tell of it, with figures as they come.

    Engines start when the first result of a turn is asked for, so that what they need is waited for and made here.
    """
    label, planned = work.measurement.label, work.planned
    job.run.event(
        "measure",
        role=label,
        anew=work.anew,
        sequences=planned.missing,
        tokens=planned.tokens,
        tokens_left=work.tokens,
        retried_sequences=work.retried,
        store=work.measurement.store.folder,
    )
    say(f"{label}: {work.sequences:,} of {planned.asked:,} sequences to measure ({work.tokens:,} tokens)")
    if work.chunks:
        await_engine(work.measurement.engine, work.measurement.choice)
        if seconds := lay_directions(work.measurement):
            job.run.event("target", role=label, seconds=round(seconds, 1))
    meter = Meter(job.run.run_id, work, partial(job.run.event, "progress"))
    started = monotonic()
    with meter.telling() if work.chunks else nullcontext():
        yield meter
    meter.note()
    job.run.event(
        "measured",
        role=label,
        seconds=round(monotonic() - started, 1),
        engine_seconds=round(meter.counted["engine_seconds"], 1),
        retried_sequences=meter.counted["retried_sequences"],
    )


def _not_measured(job: Job, label: str, planned: Plan) -> str:
    """Say what is missing, and what to do."""
    if job.inputs.recipe.models.are_here:
        return f"{planned.missing:,} sequences are not measured under {label}; `davir score` measures them"
    return (
        f"{planned.missing:,} of {planned.asked:,} sequences are not measured under {label}, and its model is not "
        "here. The same rows have the same sequences where corpus, tokenizer and `tokens` are the same: `davir "
        "score-table import` tells with which a table was made"
    )
