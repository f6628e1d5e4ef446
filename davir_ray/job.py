"""A run under way: opened, named, prepared, measured, ranked and exported, with its facts for the record.

Every stage keeps what it finished under the store or the run, so a job that was stopped goes on where it stopped.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from time import monotonic
from typing import Any

import pyarrow as pa

import davir_ray
from davir_ray import storage
from davir_ray.cluster import ray_session
from davir_ray.cluster.ray_exchange import gather
from davir_ray.cluster.ray_metrics import publish
from davir_ray.cluster.unexpected import begun, stage
from davir_ray.config import EngineConfig
from davir_ray.coreset.export import Template
from davir_ray.coreset.export_plan import Export
from davir_ray.coreset.ray_export import write_coreset, write_scored
from davir_ray.coreset.ray_rank import Ranked, Ranking, rank
from davir_ray.coreset.rules.choose import choose, rule_names, token_columns
from davir_ray.coreset.summary import Summary, summarise
from davir_ray.corpus.folds import Fold
from davir_ray.corpus.formats import FORMATS
from davir_ray.corpus.not_read import NotRead
from davir_ray.errors import CorpusError, DavirError, NotMeasured, RecipeError, StoreError, UnreadableFile
from davir_ray.influence.projected import COSINES, Alignment, ProjectedKind
from davir_ray.inputs import Inputs
from davir_ray.logprobs.choice import Choice, check_adapters, choose_engine, numerics
from davir_ray.measure.chunks import CHUNK_TOKENS
from davir_ray.measure.kind import implying, kind_identity, resolve_kind
from davir_ray.measure.measurement import Measurement, Plan
from davir_ray.measure.ray_measure import chunks_left, count_interrupted, measure, plan
from davir_ray.measure.ray_meter import Meter
from davir_ray.measure.ray_room import await_engine
from davir_ray.measure.ray_target import lay_directions
from davir_ray.measure.stored_engine import stored_engine
from davir_ray.models.resolve import ResolvedModel
from davir_ray.progress import say, warn
from davir_ray.runs.record import Chosen, Counts, EngineUsed, Facts, SkippedFile
from davir_ray.runs.run import Event, Run, run_id_of
from davir_ray.schema import role_of
from davir_ray.scores import score_code, score_digest
from davir_ray.scores.score import OF_GRADIENTS, TargetMeasured
from davir_ray.storage.layout import RunLayout, StoreLayout
from davir_ray.store.holdings import note_parts, note_use
from davir_ray.store.measurements import MeasurementStore, fingerprint
from davir_ray.store.prepared import Prepared
from davir_ray.store.ray_lookup import align, look_up
from davir_ray.store.ray_prepare import Preparation, prepare
from davir_ray.target.ray_measured import measured_target
from davir_ray.tokens.not_read import by_source

KNOWN = ("sequence_id", "num_tokens")
"""Columns of measurements that the prepared corpus has too."""


@dataclass(frozen=True)
class Job:
    """A run under way: what it works on, where it is kept, and how it measures."""

    inputs: Inputs
    run: Run
    choice: Choice
    prepared: Prepared
    measurements: tuple[Measurement, ...]

    @cached_property
    def not_read(self) -> dict[str, NotRead]:
        """What nothing reads of the rows of each source, once they are prepared."""
        return by_source(self.inputs.listing.splits, self.prepared.not_read())

    def measurements_of(self, model: str) -> tuple[Measurement, ...]:
        """The passes of one model, or of the references of all folds."""
        return tuple(one for one in self.measurements if one.model == model)

    @property
    def stores(self) -> list[MeasurementStore]:
        """All that the passes read."""
        return [store for one in self.measurements for store in one.stores]

    def only(self, model: str | None) -> "Job":
        """The same job, measuring one model alone, or none."""
        return replace(self, measurements=self.measurements_of(model) if model else ())


def open_job(inputs: Inputs, name: str, resumed: str | None = None) -> Job:
    """Connect to Ray, choose the engine, and begin or take up the run."""
    inputs.check_checkpoints()
    ray_session.connect()
    choice = engine_for(inputs)
    run_id = name_run(inputs, choice, name)
    if resumed not in (None, run_id):
        raise RecipeError(
            f"{resumed}: cannot be resumed: its corpus (files, their sizes or times), its models, the engine or its "
            f"{RunLayout.recipe} are not what they were when it began; `davir score` with its recipe begins another "
            "run, and finds in the store what this one has measured"
        )
    run = Run.begin(inputs.recipe, run_id)
    begun(run.resume)
    say(f"run {run.run_id} (if it stops, the same command goes on, or: {run.resume})")
    say(f"engine: {choice.type}, {choice.dtype} on {choice.device} ({choice.reason})")
    for warning in inputs.warnings:
        warn(f"{warning}")
    return job_of(inputs, run, choice)


def engine_for(inputs: Inputs) -> Choice:
    """Choose the engine that measures the models of a run."""
    recipe = inputs.recipe
    if recipe.models.are_here or not inputs.passes:
        choice = engine_of(recipe.engine, inputs.base, [kind for _, kind in inputs.passes])
    else:
        asked = [(kind, model.identity) for name, kind in inputs.passes for model in inputs.models[name]]
        choice = stored_engine(recipe.store, recipe.engine, asked)
    check_adapters(choice.type, inputs.all_models)
    for _, kind in inputs.passes:
        inputs.kind(kind).check(choice)
    return choice


def engine_of(config: EngineConfig, base: ResolvedModel, kinds: Collection[str] = ()) -> Choice:
    """Choose the engine that measures a model, for the cluster as it is now. kinds: what it is to measure."""
    return choose_engine(config, gpus=ray_session.cluster_gpus(), model_type=base.model_type, kinds=kinds)


def name_run(inputs: Inputs, choice: Choice, name: str) -> str:
    """Name the run that scores these inputs."""
    recipe = inputs.recipe
    computed = numerics(choice, recipe.engine)
    fingerprints = [
        fingerprint(kind_identity(kind, inputs.kind(kind)), model.identity, computed)
        for name, kind in inputs.passes
        for model in inputs.models[name]
    ]
    aimed_at = inputs.target_digest or ""
    return run_id_of(
        recipe, name, inputs.tokens_digest, score_code(recipe.score.name), *fingerprints, aimed_at
    )


def job_of(inputs: Inputs, run: Run, choice: Choice, work: str = RunLayout.work) -> Job:
    """Put together what a run works with. work: the folder of the run that keeps plans and progress."""
    folder = StoreLayout(inputs.recipe.store).prepared_with(inputs.settings_digest)
    note_parts(folder, inputs.listing.digest, inputs.listing.digests)
    job = Job(inputs, run, choice, Prepared(folder, inputs.listing.digests), ())
    passes = [
        _measurement(job, work, asked, model, fold)
        for asked in inputs.passes
        for model, fold in _with_folds(inputs.models[asked[0]])
    ]
    return replace(job, measurements=tuple(passes))


def _with_folds(models: Sequence[ResolvedModel]) -> Iterator[tuple[ResolvedModel, Fold | None]]:
    """Yield the models of a role, each with the fold that it measures; one alone measures all rows."""
    for index, model in enumerate(models):
        yield model, Fold(index, len(models)) if len(models) > 1 else None


def _described(model: ResolvedModel) -> dict[str, str | None]:
    return {"model": model.identity, "path": model.model_path, "adapter": model.adapter_path}


def stores_of(job: Job, kind: str, model: ResolvedModel) -> tuple[MeasurementStore, ...]:
    """Name the measurements of a kind under a model, then those of the kinds that imply it."""
    recipe = job.inputs.recipe
    computed = numerics(job.choice, recipe.engine)
    names = implying(kind, [measured for _, measured in job.inputs.passes])
    kinds = {name: job.inputs.kind(name) for name in names}
    prints = {
        name: fingerprint(kind_identity(name, one), model.identity, computed) for name, one in kinds.items()
    }
    return tuple(
        MeasurementStore(StoreLayout(recipe.store).measurements_of(prints[name]), one)
        for name, one in kinds.items()
    )


def _note_stores(measurement: Measurement, kind: str, model: ResolvedModel, run: Run) -> None:
    """Describe what a pass adds to, and note what it uses."""
    own, *others = measurement.stores
    computed = numerics(measurement.choice, measurement.engine)
    own.describe(
        {
            "kind": kind,
            "kind_identity": kind_identity(kind, measurement.kind),
            **_described(model),
            "numerics": computed,
        }
    )
    for store in [own, *(one for one in others if one.parts())]:
        note_use(store.folder, run.folder)


def _measurement(
    job: Job, work: str, asked: tuple[str, str], model: ResolvedModel, fold: Fold | None
) -> Measurement:
    recipe, (name, kind) = job.inputs.recipe, asked
    measurement = Measurement(
        model=name,
        kind=job.inputs.kind(kind),
        fold=fold,
        views=job.inputs.passes[asked],
        models=recipe.models,
        engine=recipe.engine,
        choice=job.choice,
        identity=model.identity,
        max_length=recipe.tokens.max_length,
        chunk_tokens=CHUNK_TOKENS[job.choice.device],
        prepared=job.prepared,
        stores=stores_of(job, kind, model),
        folder="",
    )
    _note_stores(measurement, kind, model, job.run)
    return replace(measurement, folder=storage.join(job.run.folder, work, measurement.label))


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


def measure_models(job: Job, may_measure: bool) -> dict[str, Plan]:
    """Measure what the store lacks, one model after the other over the whole cluster."""
    plans = {}
    for measurement in job.measurements:
        label, anew = measurement.label, not storage.exists(measurement.plan_uri)
        plans[label] = planned = plan(measurement)
        if planned.missing and not may_measure:
            raise NotMeasured(_not_measured(job, label, planned))
        todo = chunks_left(measurement, planned)
        tokens_left = sum(row["tokens"] for row in todo)
        job.run.event(
            "measure",
            role=label,
            anew=anew,
            sequences=planned.missing,
            tokens=planned.tokens,
            tokens_left=tokens_left,
            retried_sequences=count_interrupted(measurement, todo),
            store=measurement.store.folder,
        )
        left = sum(row["sequences"] for row in todo)
        say(f"{label}: {left:,} of {planned.asked:,} sequences to measure ({tokens_left:,} tokens)")
        if todo:
            await_engine(measurement.engine, measurement.choice)
            if seconds := lay_directions(measurement):
                job.run.event("target", role=label, seconds=round(seconds, 1))
        meter = Meter(job.run.run_id, label, planned, todo, partial(job.run.event, "progress"))
        started = monotonic()
        measure(measurement, planned, todo, meter)
        meter.note()
        job.run.event(
            "measured",
            role=label,
            seconds=round(monotonic() - started, 1),
            engine_seconds=round(meter.counted["engine_seconds"], 1),
            retried_sequences=meter.counted["retried_sequences"],
        )
    return plans


def _not_measured(job: Job, label: str, planned: Plan) -> str:
    """Say what is missing, and what to do."""
    if job.inputs.recipe.models.are_here:
        return f"{planned.missing:,} sequences are not measured under {label}; `davir score` measures them"
    return (
        f"{planned.missing:,} of {planned.asked:,} sequences are not measured under {label}, and its model is not "
        "here. The same rows have the same sequences where corpus, tokenizer and `tokens` are the same: `davir "
        "score-table import` tells with which a table was made"
    )


def _checkpoints(inputs: Inputs) -> list[ResolvedModel]:
    """Return the models under which gradients were taken, in order."""
    asked = dict.fromkeys(need.model for need in inputs.needs if need.kind in OF_GRADIENTS)
    return [one for name in asked for one in inputs.models[name]]


def aim(job: Job, may_measure: bool) -> TargetMeasured | None:
    """Find out what the score has to know of the target; None where it does not ask."""
    inputs = job.inputs
    if inputs.few_shot is None or not inputs.score.reads_target:
        return None
    of_target = {need[:2] for need in inputs.score.of_target}
    return measured_target(
        inputs.few_shot,
        _checkpoints(inputs),
        [one for one in job.measurements if (one.kind.name, role_of(one.model)) in of_target],
        may_measure=may_measure,
        note=lambda label, seconds: job.run.event("target", role=label, seconds=round(seconds, 1)),
    )


@stage(DavirError)
def rank_corpus(job: Job, target: TargetMeasured | None) -> Ranked:
    """Score every row, and put all rows in the order of their scores."""
    inputs, rows = job.inputs, job.prepared.count_rows()
    paths = job.run.paths
    for folder in (paths.ranked, paths.scored, paths.unscored, paths.coreset, paths.exports):
        storage.delete(folder)  # of an attempt that was stopped
    job.run.event("rank", rows=sum(rows))
    asked = list(dict.fromkeys((need.kind, need.model) for need in inputs.needs))
    found = {one: look_up_need(job, *one, target) for one in asked}
    ranking = Ranking(
        prepared=job.prepared,
        needs=inputs.needs,
        score=inputs.score,
        config=inputs.recipe.score,
        target=target,
        token_columns=token_columns(inputs.recipe.select),
        failed={
            (kind, model): {
                key: why for one in job.measurements_of(model) for key, why in one.failed().items()
            }
            for kind, model in asked
        },
        files=tuple(split.path for split in inputs.listing.splits),
    )
    return rank(ranking, found, rows, paths.ranked)


@stage(StoreError)
def look_up_need(job: Job, kind: str, model: str, target: TargetMeasured | None = None) -> list[Any]:
    """Look up what one model measured of a kind, or the references of all folds; a FOUND table a split.

    target: what stored steps are compared with where they are read.
    """
    views = tuple(dict.fromkeys(need.view for need in job.inputs.needs if need[:2] == (kind, model)))
    columns, as_read = _columns(kind), None
    if target is not None and isinstance(resolve_kind(kind), ProjectedKind):
        columns, as_read = COSINES, Alignment.with_target(target.vectors[model])
    folds = [
        look_up(job.prepared, views, stores_of(job, kind, one), columns, fold, as_read)
        for one, fold in _with_folds(job.inputs.models[model])
    ]
    return folds[0] if len(folds) == 1 else gather(folds, align)


def _columns(kind: str) -> pa.Schema:
    """Return the columns that are looked up of a kind: the number that orders measurements, and what is not known."""
    number, *others = list(resolve_kind(kind).columns)[1:]
    return pa.schema([number, *(field for field in others if field.name not in KNOWN)])


@stage(DavirError)
def select_and_export(job: Job, ranked: Ranked) -> Chosen:
    """Apply the selection rules, write the scored table and the core-set, and sum them up."""
    inputs, run = job.inputs, job.run
    job.run.event("select", ranked=ranked.ranked)
    few_shot = inputs.few_shot if inputs.score.parts is not None else None
    subtasks = [one.name for one in few_shot.target.subtasks] if few_shot is not None else []
    selections = choose([rule.over(subtasks) for rule in inputs.recipe.select], ranked.scan)
    export = Export(
        corpus=inputs.recipe.corpus,
        formats=inputs.listing.formats,
        splits=inputs.listing.splits,
        config=inputs.recipe.export,
        run_dir=run.folder,
        template=Template(inputs.recipe.tokens.chat_template_kwargs, inputs.tokenizer.call_forms()),
    )
    counts = write_scored(ranked, selections, rule_names(inputs.recipe.select), export)
    storage.await_files(run.paths.scored, len(selections))
    summary = summarise(partial(scan_folder, run.paths.scored), inputs.recipe.select)
    folders = write_coreset(export, ranked, selections, counts)
    _note_chosen(run, summary)
    return Chosen(**dict(summary), scored=run.paths.scored, coreset=folders)


def _note_chosen(run: Run, summary: Summary) -> None:
    """Tell what became of the rows."""
    run.event("chosen", rows=summary.status, selected=summary.selected)
    for status, rows in summary.status.items():
        publish(run.run_id, status, {"rows": rows})


def scan_folder(folder: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Read some columns of the parts of a table, in order."""
    for uri in storage.list_files(folder, ".parquet"):
        yield storage.read_table(uri, list(columns))


def bad_files(job: Job) -> dict[str, str]:
    """The files that could not be read, found when they were listed or when they were read."""
    listing = job.inputs.listing
    found = {listing.splits[index].path: reason for index, reason in job.prepared.bad().items()}
    return {bad.path: bad.reason for bad in listing.bad_files} | found


def facts(job: Job) -> Facts:
    """What the record says of how the run was made."""
    inputs = job.inputs
    return Facts(
        run_id=job.run.run_id,
        run_dir=job.run.folder,
        davir_ray=davir_ray.__version__,
        ray=version("ray"),
        score=inputs.score.name,
        score_code=score_digest(inputs.recipe.score.name),
        formats=inputs.listing.formats,
        not_read={source: found.columns for source, found in job.not_read.items()},
        models={name: tuple(model.identity for model in some) for name, some in inputs.models.items()},
        target=inputs.target_digest,
        engine=EngineUsed(type=job.choice.type, dtype=job.choice.dtype, reason=job.choice.reason),
        measurements={one.label: one.store.folder for one in job.measurements},
        bad_files=tuple(SkippedFile(path=path, reason=reason) for path, reason in bad_files(job).items()),
    )


def counts(plans: dict[str, Plan], events: Sequence[Event]) -> Counts:
    """By model, how many sequences were measured, and how many the store held when the run was first planned.

    measured_again: how many were begun once more, over all starts of the run, and how many were planned once more since
    the store had lost them. What dies with a driver and with its engines too is counted once.
    """
    missing = {label: _planned(label, events) or [one.missing] for label, one in plans.items()}
    again = {label: sum(later) for label, (_, *later) in missing.items()}
    for event in events:
        if event["event"] in ("measure", "measured") and event.get("role") in again:
            again[event["role"]] += event.get(
                "retried_sequences", 0
            )  # an older version may have begun the run
    return Counts(
        measured={label: first for label, (first, *_) in missing.items()},
        measured_again=again,
        reused={label: one.asked - missing[label][0] for label, one in plans.items()},
    )


def _planned(label: str, events: Sequence[Event]) -> list[int]:
    """Tell how many sequences each new plan of a model had to measure, since the run last had all that it asked for."""
    last = max((index for index, event in enumerate(events) if event["event"] == "select"), default=-1)
    begun = (one for one in events[last + 1 :] if one["event"] == "measure" and one.get("role") == label)
    return [one["sequences"] for one in begun if one.get("anew")]
