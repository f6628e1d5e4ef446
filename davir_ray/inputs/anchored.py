"""The paths of a recipe, made absolute."""

import os
from pathlib import Path
from typing import Any, TypeVar

from davir_ray import storage
from davir_ray.config import CorpusConfig, ModelConfig, ModelsConfig, TrainConfig
from davir_ray.errors import RecipeError
from davir_ray.recipe import Recipe
from davir_ray.schema import ROLES
from davir_ray.tokens.templates import TEMPLATES

C = TypeVar("C", bound=CorpusConfig)


def in_submitted_job() -> bool:
    """Tell whether this process is the driver of `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def anchored(recipe: Recipe) -> Recipe:
    """Make the local paths of a recipe absolute: workers may run in another folder than the driver."""
    if in_submitted_job():
        for name, uri in (("store", recipe.store), ("output", recipe.output)):
            if uri == os.path.relpath(uri) and "://" not in uri:
                raise RecipeError(
                    f"{name}: {uri} would lie in the job's temporary copy of the working folder; give an absolute "
                    "path that all nodes share, or a URI"
                )
    template = recipe.tokens.template
    tokens = {} if template in TEMPLATES else {"template": storage.absolute(template)}
    update = {
        "corpus": _anchored_corpus(recipe.corpus),
        "tokens": recipe.tokens.model_copy(update=tokens),
        "models": _anchored_models(recipe.models),
        "train": recipe.train and _anchored_training(recipe.train),
        "target": recipe.target and _anchored_corpus(recipe.target),
        "warmup": recipe.warmup.model_copy(update={"train": _anchored_training(recipe.warmup.train)}),
        "references": {
            name: one.model_copy(update={"train": _anchored_training(one.train)})
            for name, one in recipe.references.items()
        },
        "store": storage.absolute(recipe.store),
        "output": storage.absolute(recipe.output),
    }
    return recipe.model_copy(update=update)


def _anchored_corpus(corpus: C) -> C:
    paths = {source: tuple(map(storage.absolute, some)) for source, some in corpus.paths.items()}
    return corpus.model_copy(update={"paths": paths})


def _anchored_training(train: TrainConfig) -> TrainConfig:
    update: dict[str, Any] = {
        name: _anchored_corpus(corpus)
        for name, corpus in (("corpus", train.corpus), ("eval_corpus", train.eval_corpus))
        if corpus is not None
    }
    if isinstance(train.deepspeed, str):
        update["deepspeed"] = storage.absolute(train.deepspeed)
    return train.model_copy(update=update)


def _anchored_models(models: ModelsConfig) -> ModelsConfig:
    anchored: dict[str, Any] = {"base": _anchored_model(models.base)}
    for role in ROLES[1:]:
        named = getattr(models, role)
        anchored[role] = (
            tuple(map(_anchored_model, named))
            if isinstance(named, tuple)
            else named and _anchored_model(named)
        )
    return ModelsConfig(**anchored)


def _anchored_model(model: ModelConfig) -> ModelConfig:
    """Make the paths of a model absolute where they are folders; what is no folder is a hub id or a URI."""
    names = {
        "model_name_or_path": model.model_name_or_path,
        "adapter_name_or_path": model.adapter_name_or_path,
    }
    folders = {field: name for field, name in names.items() if name and Path(name).expanduser().is_dir()}
    return model.model_copy(update={field: storage.absolute(name) for field, name in folders.items()})
