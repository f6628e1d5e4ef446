"""The steps of the main job that train: before scoring the reference, after it the model on the core-set."""

from davir_ray.cluster import ray_session
from davir_ray.config import ModelConfig, ModelsConfig, TrainConfig
from davir_ray.errors import RecipeError
from davir_ray.inputs import anchored
from davir_ray.job import engine_of
from davir_ray.measure.ray_room import await_engine
from davir_ray.models.resolve import resolve
from davir_ray.recipe import Recipe
from davir_ray.runs.record import ReferenceRecord, TrainingRecord
from davir_ray.runs.run import Run
from davir_ray.train.checks import check_base, check_corpora, check_settings, with_deepspeed
from davir_ray.train.ray_fit import await_workers
from davir_ray.train.sources import Source, held_out_source, reference_sources, training_source
from davir_ray.train.stage import device_of, run_training, training_run


def check_trainings(recipe: Recipe) -> None:
    """Check settings, model, rows and engine of a recipe that trains, before the first of its trainings."""
    recipe = anchored(recipe)
    reference = recipe.reference.train if recipe.reference is not None else None
    trainings = [config for config in (reference, recipe.train) if config is not None]
    if not trainings:
        return
    base = resolve(recipe.models.base)
    check_base(base)
    ray_session.connect()
    await_engine(recipe.engine, engine_of(recipe.engine, base))
    for config in trainings:
        check_settings(with_deepspeed(config), device_of(config))
        await_workers(config, device_of(config))
        check_corpora(recipe, config)


def make_reference(recipe: Recipe, name: str) -> ReferenceRecord:
    """Fine-tune the base on the recipe's corpus; return the record of one model, or of one a fold."""
    recipe = anchored(recipe)
    config, sources, held_out = _references(recipe)
    trainings = tuple(run_training(source, held_out, config, f"{name}-reference") for source in sources)
    return ReferenceRecord(models=tuple(one.model for one in trainings), trainings=trainings)


def with_reference(recipe: Recipe, name: str) -> Recipe:
    """Return the recipe with the models that its `reference` section makes under `models.reference`.

    Raises `RecipeError` if they are not made yet.
    """
    if recipe.reference is None:
        return recipe
    recipe = anchored(recipe)
    runs = _reference_runs(recipe, name)
    if not _all_finished(runs):
        raise RecipeError("reference: is not made yet; `davir reference` makes it, and `davir run` does all")
    return _naming(recipe, runs)


def with_made(recipe: Recipe, reference: ReferenceRecord) -> Recipe:
    """Return the recipe with the models that `make_reference` has just made under `models.reference`."""
    recipe = anchored(recipe)
    return _naming(recipe, [Run.in_output(recipe.output, one.run_id) for one in reference.trainings])


def _naming(recipe: Recipe, runs: list[Run]) -> Recipe:
    models = tuple(ModelConfig(model_name_or_path=run.paths.model) for run in runs)
    named = ModelsConfig(base=recipe.models.base, reference=models[0] if len(models) == 1 else models)
    return recipe.model_copy(update={"models": named, "reference": None})


def references_made(recipe: Recipe, name: str) -> bool:
    """Tell whether the models that the `reference` section makes are made."""
    return _all_finished(_reference_runs(anchored(recipe), name))


def _all_finished(runs: list[Run]) -> bool:
    return all(run.record(TrainingRecord) is not None for run in runs)


def _reference_runs(recipe: Recipe, name: str) -> list[Run]:
    config, sources, held_out = _references(recipe)
    return [training_run(source, held_out, config, f"{name}-reference") for source in sources]


def _references(recipe: Recipe) -> tuple[TrainConfig, list[Source], Source | None]:
    if recipe.reference is None:
        raise RecipeError("reference: the recipe has no such section")
    ray_session.connect()
    config = recipe.reference.train
    return config, reference_sources(recipe, recipe.reference), held_out_source(recipe, config)


def train(recipe: Recipe, name: str) -> TrainingRecord:
    """Train on the core-set of a finished run, or on `train.corpus`; return the record of the training."""
    if (config := anchored(recipe).train) is None:
        raise RecipeError("train: the recipe has no such section")
    ray_session.connect()
    recipe = anchored(recipe if config.corpus is not None else with_reference(recipe, name))
    source = training_source(recipe, name, config)
    return run_training(source, held_out_source(recipe, config), config, f"{name}-{config.objective}")
