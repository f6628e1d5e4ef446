"""A run under way: opened, named, and put together from what it works with."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from davir_ray import storage
from davir_ray.cluster import ray_session
from davir_ray.cluster.unexpected import begun
from davir_ray.config import EngineConfig
from davir_ray.corpus.folds import Fold
from davir_ray.corpus.not_read import NotRead
from davir_ray.errors import RecipeError
from davir_ray.inputs import Inputs
from davir_ray.logprobs.choice import Choice, check_adapters, choose_engine, numerics
from davir_ray.measure.chunks import CHUNK_TOKENS
from davir_ray.measure.kind import implying, kind_identity
from davir_ray.measure.measurement import Measurement
from davir_ray.measure.stored_engine import stored_engine
from davir_ray.models.resolve import ResolvedModel
from davir_ray.progress import say, warn
from davir_ray.runs.run import Run, run_id_of
from davir_ray.scores import score_code
from davir_ray.storage.layout import RunLayout, StoreLayout
from davir_ray.store.holdings import note_parts, note_use
from davir_ray.store.measurements import MeasurementStore, fingerprint
from davir_ray.store.prepared import Prepared
from davir_ray.tokens.not_read import by_source


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

    def model_of(self, measurement: Measurement) -> ResolvedModel:
        """The model of a pass, on this machine."""
        return self.inputs.models[measurement.model][measurement.number]

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
        for model, fold in with_folds(inputs.models[asked[0]])
    ]
    return replace(job, measurements=tuple(passes))


def with_folds(models: Sequence[ResolvedModel]) -> Iterator[tuple[ResolvedModel, Fold | None]]:
    """Yield the models of a role, each with the fold that it measures; one alone measures all rows."""
    for index, model in enumerate(models):
        yield model, Fold(index, len(models)) if len(models) > 1 else None


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
        adapted=model.adapter_path is not None,
        max_length=recipe.tokens.max_length,
        chunk_tokens=CHUNK_TOKENS[job.choice.device],
        prepared=job.prepared,
        stores=stores_of(job, kind, model),
        folder="",
    )
    _note_stores(measurement, kind, model, job.run)
    return replace(measurement, folder=storage.join(job.run.folder, work, measurement.label))


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


def _described(model: ResolvedModel) -> dict[str, str | None]:
    return {"model": model.identity, "path": model.model_path, "adapter": model.adapter_path}
