"""The steps of the main job that train: before scoring the models to measure under, after it one on the core-set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from davir_ray.cluster import ray_session
from davir_ray.config import LoraConfig, ModelConfig, ReferenceConfig, TrainConfig
from davir_ray.errors import RecipeError
from davir_ray.inputs import anchored
from davir_ray.job import engine_of
from davir_ray.measure.ray_room import await_engine
from davir_ray.models.resolve import resolve, resolve_reference
from davir_ray.recipe import Recipe
from davir_ray.runs.record import ReferenceRecord, TrainingRecord
from davir_ray.runs.run import Run
from davir_ray.schema import Role
from davir_ray.train.checks import check_base, check_corpora, check_settings, with_deepspeed
from davir_ray.train.ray_fit import await_workers
from davir_ray.train.settings import learning_rate_of
from davir_ray.train.sources import (
    Source,
    held_out_source,
    reference_sources,
    target_source,
    training_source,
    warmup_source,
)
from davir_ray.train.stage import device_of, run_training, training_run

TARGET_SHARE = 0.1
"""Of the usual learning rate, for a short training on a few rows (Train on Validation, arXiv 2510.00386)."""


@dataclass(frozen=True)
class ToMake:
    """A training that makes one of the models that are measured. start: what it begins from, where that is another."""

    source: Source
    held_out: Source | None
    train: TrainConfig
    name: str
    start: ModelConfig | None = None

    @property
    def run(self) -> Run:
        """Its run, whether it was begun or not."""
        return training_run(self.source, self.held_out, self.train, self.name)


def check_trainings(recipe: Recipe) -> None:
    """Check settings, model, rows and engine of a recipe that trains, before the first of its trainings."""
    recipe = anchored(recipe)
    trainings = recipe.trainings.values()
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


def check_adapter_at_start(recipe: Recipe) -> None:
    """Check that a model of the target that goes on with an adapter has no settings of another: before that is made."""
    target, made = recipe.references.get("target"), recipe.reference
    if target is None or target.start != "reference":
        return
    if made is not None and made.train.lora is not None and not made.train.lora.merge:
        refuse_lora(target.train, "the reference that it begins from")
    for model in recipe.models.all_of("reference"):
        start = _whole(recipe, model)
        if start.adapter_name_or_path:
            refuse_lora(target.train, start.adapter_name_or_path)


def refuse_lora(train: TrainConfig, adapter: str) -> None:
    """Raise `RecipeError` where a training that goes on with an adapter is given settings of one."""
    if train.lora is not None:
        raise RecipeError(
            f"references.target.train.lora: {adapter} is an adapter, which is trained on with its own settings; "
            "leave `lora` out"
        )


def make_models(recipe: Recipe, name: str) -> tuple[ReferenceRecord, Recipe]:
    """Make every model that the recipe makes, each after what it begins from; return their folders and trainings,
    and the recipe with all of them under `models`.
    """
    recipe = anchored(recipe)
    if not recipe.makes:
        raise RecipeError(
            "references: the recipe makes no model: it has no such section, and its score no warm-up"
        )
    check_adapter_at_start(recipe)
    recipe = with_rate_of_target(recipe)
    ray_session.connect()
    folders: dict[str, tuple[str, ...]] = {}
    trainings: list[TrainingRecord] = []
    while recipe.makes:
        role = recipe.makes[0]
        found = _to_make(recipe, name, role)
        made = [run_training(one.source, one.held_out, one.train, one.name) for one in found]
        trainings += made
        recipe = _naming(recipe, role, found)
        folders[role] = tuple(model.model_name_or_path for model in _made(role, found))
    return ReferenceRecord(models=folders, trainings=tuple(trainings)), recipe


def with_models(recipe: Recipe, name: str) -> Recipe:
    """Return the recipe with the models that it makes under `models`. Raises `RecipeError` if one is not made yet."""
    recipe, left = made_so_far(recipe, name)
    if left:
        raise RecipeError(
            f"models.{left[0]}: is not made yet; `davir reference` makes it, and `davir run` does all"
        )
    return recipe


def made_so_far(recipe: Recipe, name: str) -> tuple[Recipe, tuple[Role, ...]]:
    """Return the recipe with those models under `models` that are made, and the roles of those that are not."""
    if not recipe.makes:
        return recipe, ()
    ray_session.connect()
    recipe = with_rate_of_target(anchored(recipe))
    while recipe.makes:
        role = recipe.makes[0]
        found = _to_make(recipe, name, role)
        if not all(one.run.record(TrainingRecord) is not None for one in found):
            break
        recipe = _naming(recipe, role, found)
    return recipe, recipe.makes


def _to_make(recipe: Recipe, name: str, role: Role) -> list[ToMake]:
    """Name the trainings that make the models of a role: one, one a fold, or one for each model to begin from."""
    if role == "warmup":
        config = recipe.warmup.train
        held_out = held_out_source(recipe, config)
        return [ToMake(warmup_source(recipe), held_out, config, f"{name}-warmup")]
    reference = recipe.reference if role == "reference" else recipe.references["target"]
    assert reference is not None
    name = f"{name}-{role}"
    if reference.fit == "target":
        return [_on_target(recipe, reference, start, name) for start in recipe.models.all_of(reference.start)]
    sources, held_out = reference_sources(recipe, reference), held_out_source(recipe, reference.train)
    return [ToMake(source, held_out, reference.train, name) for source in sources]


def _on_target(recipe: Recipe, reference: ReferenceConfig, start: ModelConfig, name: str) -> ToMake:
    """Name a training on the target's rows that begins from a model."""
    start = _whole(recipe, start) if reference.start != "base" else start
    train = reference.train
    if start.adapter_name_or_path:
        refuse_lora(train, start.adapter_name_or_path)
    if train.learning_rate is None:
        as_adapter = train.model_copy(update={"lora": LoraConfig()}) if start.adapter_name_or_path else train
        train = _at_a_tenth(train, as_adapter)
    source = target_source(recipe, train, start)
    held_out = held_out_source(recipe, train)
    return ToMake(source, held_out, train, name, None if reference.start == "base" else start)


def with_rate_of_target(recipe: Recipe) -> Recipe:
    """Return the recipe with a learning rate for its training on the target, where it makes what that begins from.

    To be asked before that is made: then its model stands in the place of its section.
    """
    found = {name: _after(recipe, one) for name, one in recipe.references.items()}
    return recipe.model_copy(update={"references": found})


def _after(recipe: Recipe, reference: ReferenceConfig) -> ReferenceConfig:
    before = _trained_before(recipe, reference.start) if reference.fit == "target" else None
    if before is None or reference.train.learning_rate is not None:
        return reference
    return reference.model_copy(update={"train": _at_a_tenth(reference.train, before)})


def _trained_before(recipe: Recipe, start: str) -> TrainConfig | None:
    """Return the training that makes what one on the target begins from; None where the recipe makes none."""
    if start == "warmup":
        return recipe.warmup.train if "warmup" in recipe.makes else None
    return recipe.reference.train if start == "reference" and recipe.reference is not None else None


def _at_a_tenth(train: TrainConfig, of: TrainConfig) -> TrainConfig:
    return train.model_copy(update={"learning_rate": TARGET_SHARE * learning_rate_of(of)})


def _whole(recipe: Recipe, start: ModelConfig) -> ModelConfig:
    """Name the model that an adapter goes over, where a folder holds only that."""
    resolved = resolve_reference(resolve(recipe.models.base), start)
    if resolved.adapter_path is None or start.adapter_name_or_path:
        return start
    return ModelConfig(
        model_name_or_path=recipe.models.base.model_name_or_path,
        revision=recipe.models.base.revision,
        adapter_name_or_path=start.model_name_or_path,
    )


def _naming(recipe: Recipe, role: Role, found: Sequence[ToMake]) -> Recipe:
    """Return the recipe with the models of a role under `models`, as if they were named there."""
    update: dict[str, Any] = {role: _one_or_more(_made(role, found))}
    if role == "target":
        update["prior"] = _one_or_more([one.start for one in found if one.start is not None])
    references = {name: one for name, one in recipe.references.items() if name != role}
    models = recipe.models.model_copy(update=update)
    return recipe.model_copy(update={"models": models, "references": references})


def _one_or_more(models: Sequence[ModelConfig]) -> ModelConfig | tuple[ModelConfig, ...] | None:
    return None if not models else models[0] if len(models) == 1 else tuple(models)


def _made(role: Role, found: Sequence[ToMake]) -> list[ModelConfig]:
    """Name the models that trainings make: a warm-up's are its checkpoints."""
    if role == "warmup":
        paths = [one.run.paths for one in found]
        return [
            ModelConfig(model_name_or_path=path.epoch(epoch))
            for one, path in zip(found, paths, strict=True)
            for epoch in range(1, int(one.train.num_train_epochs) + 1)
        ]
    return [_over(one.start, one.run.paths.model, one.train) for one in found]


def _over(start: ModelConfig | None, made: str, train: TrainConfig) -> ModelConfig:
    """Name a model that was made: its folder, or the whole model that it began from with the new adapter over it."""
    if start is None or start.adapter_name_or_path or train.lora is None or train.lora.merge:
        return ModelConfig(model_name_or_path=made)
    return start.model_copy(update={"adapter_name_or_path": made})


def train(recipe: Recipe, name: str) -> TrainingRecord:
    """Train on the core-set of a finished run, or on `train.corpus`; return the record of the training."""
    if (config := anchored(recipe).train) is None:
        raise RecipeError("train: the recipe has no such section")
    ray_session.connect()
    recipe = anchored(recipe if config.corpus is not None else with_models(recipe, name))
    source = training_source(recipe, name, config)
    return run_training(source, held_out_source(recipe, config), config, f"{name}-{config.objective}")
