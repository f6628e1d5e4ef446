"""What cannot work, told before workers start."""

import json
from importlib.util import find_spec
from pathlib import Path

from davir_ray import storage
from davir_ray.config import TrainConfig
from davir_ray.corpus.listing import Listing
from davir_ray.errors import ModelError, RecipeError, TrainingError
from davir_ray.inputs import PAIRS, check_inputs
from davir_ray.models.adapter import read_json
from davir_ray.models.resolve import ResolvedModel
from davir_ray.recipe import Recipe
from davir_ray.runs.trackers import check_trackers
from davir_ray.schema import Need


def check_settings(train: TrainConfig, device: str) -> None:
    """Check what settings (see `with_deepspeed`) ask of the machine."""
    for name in ("trl", "deepspeed", "datasets"):
        if find_spec(name) is None:
            raise RecipeError(f"train: {name} is not installed; pip install 'davir-ray[train]'")
    check_trackers("train.report_to", train.report_to)
    if device == "cpu" and train.packing:
        raise RecipeError(
            "train.packing: rows in one sequence are kept apart by flash attention, on a GPU only"
        )
    if train.packing and find_spec("flash_attn") is None:
        raise RecipeError("train.packing: flash_attn is not installed")
    if device == "cpu" and (train.offload_optimizer or train.offload_param):
        raise RecipeError("train.offload_*: without a GPU there is nothing to offload from")
    zero = train.deepspeed.get("zero_optimization", {}) if isinstance(train.deepspeed, dict) else {}
    if zero.get("stage") == 3 and not zero.get("stage3_gather_16bit_weights_on_model_save"):
        raise RecipeError(
            "train.deepspeed: ZeRO 3 needs stage3_gather_16bit_weights_on_model_save: true, or no model can be written"
        )


def with_deepspeed(train: TrainConfig) -> TrainConfig:
    """Return settings with the user's DeepSpeed file read."""
    if not isinstance(train.deepspeed, str):
        return train
    return train.model_copy(update={"deepspeed": read_deepspeed(train.deepspeed)})


def read_deepspeed(path: str) -> dict[str, object]:
    """Read a DeepSpeed configuration. Raises `RecipeError`."""
    try:
        config = json.loads(storage.read_bytes(path))
    except FileNotFoundError as error:
        raise RecipeError(f"train.deepspeed: {path}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise RecipeError(f"train.deepspeed: {path}: cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise RecipeError(f"train.deepspeed: {path}: expected a JSON object")
    return config


def check_trainable(start: ResolvedModel, train: TrainConfig) -> None:
    """Check that a training can begin from a model: a whole one, or with an adapter that is trained on."""
    start.check_here()
    if start.adapter_path and (train.lora is not None or train.is_preference):
        check_base(start)


def check_base(base: ResolvedModel) -> None:
    """Check that a model can be trained."""
    if base.adapter_path:
        raise ModelError(f"{base.adapter_path}: training begins from a whole model; merge the adapter first")


def needs_of(train: TrainConfig) -> tuple[Need, ...]:
    """Tell what a training on a corpus has measured: both sides of pairs under the base, or nothing."""
    return PAIRS if train.is_preference else ()


def check_corpora(recipe: Recipe, train: TrainConfig) -> dict[str, Listing]:
    """Check the corpora of a training, by their names: they can be read, and hold pairs where those are asked for.

    The recipe's own is looked at for pairs alone: scoring checks the rest of it. A training of the recipe other than
    `train` has pairs of the target.
    """
    found = {}
    pairs = recipe.corpus if train is recipe.train else recipe.target
    own = pairs if train.is_preference else None
    for name, corpus in {"corpus": train.corpus or own, "eval_corpus": train.eval_corpus}.items():
        if corpus is not None:
            sections = {id(recipe.corpus): "corpus", id(recipe.target): "target"}
            section = sections.get(id(corpus), f"train.{name}")
            on_corpus = recipe.model_copy(update={"corpus": corpus})
            inputs = check_inputs(on_corpus, needs_of(train), section=section)
            what = f"the {section}" if section in sections.values() else section
            check_pairs(inputs.listing.has_pairs, train, what)
            found[name] = inputs.listing
    return found


def check_pairs(has_pairs: bool, train: TrainConfig, what: str) -> None:
    """Check that there are pairs where the objective asks for them, before anything is measured."""
    if train.is_preference and not has_pairs:
        raise TrainingError(
            f"{what}: holds no preference pairs, and objective {train.objective} trains on nothing else; "
            "`davir formats` shows what a pair looks like"
        )


def batch_for(train: TrainConfig, rows: int) -> TrainConfig:
    """Return the settings with a batch that is no larger than so many rows."""
    others = train.gradient_accumulation_steps * train.num_workers
    size = min(train.per_device_train_batch_size, max(1, rows // others))
    return train.model_copy(update={"per_device_train_batch_size": size})


def check_rows(rows: int, largest_id: int, train: TrainConfig, base: ResolvedModel, what: str) -> None:
    """Check that there is enough to train on, and that the model knows every token."""
    if rows == 0:
        raise TrainingError(f"{what}: there is no row to train on")
    batch = train.per_device_train_batch_size * train.gradient_accumulation_steps * train.num_workers
    if batch > rows:
        raise TrainingError(
            f"{what}: a step takes {batch} rows (per_device_train_batch_size {train.per_device_train_batch_size} x "
            f"gradient_accumulation_steps {train.gradient_accumulation_steps} x num_workers {train.num_workers}), "
            f"and there are {rows}"
        )
    check_vocabulary(largest_id, base, what)


def check_held_out(rows: int, largest_id: int, base: ResolvedModel, what: str) -> None:
    """Check that there is something to evaluate on, and that the model knows every token."""
    if rows == 0:
        raise TrainingError(f"{what}: there is no row to evaluate on")
    check_vocabulary(largest_id, base, what)


def check_vocabulary(largest_id: int, base: ResolvedModel, what: str) -> None:
    """Check that the model has an embedding for the largest token id."""
    config = read_json(Path(base.model_path) / "config.json")
    known = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    if known is not None and largest_id >= known:
        raise ModelError(
            f"{what}: has token id {largest_id}, and {base.model_path} has embeddings for {known} tokens; "
            "the corpus was tokenised for another model"
        )
