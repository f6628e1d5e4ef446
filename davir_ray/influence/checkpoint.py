"""What a checkpoint must be for gradients to be taken under it, told from its files before anything is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from davir_ray.errors import ModelError
from davir_ray.influence.moments import check_moments
from davir_ray.models.adapter import CONFIG, read_json
from davir_ray.models.resolve import ResolvedModel


def check_checkpoint(model: ResolvedModel, *, moments: bool) -> None:
    """Check a base that is not quantised, with a plain LoRA over it, and the optimiser's moments where they are needed.

    Raises `ModelError`.
    """
    check_not_quantised(model.model_path)
    if model.adapter_path is None:
        raise ModelError(
            f"{model.model_path}: has no adapter; gradients are taken of the parameters of a LoRA adapter, such as a "
            "warm-up leaves (`davir reference`)"
        )
    check_plain_lora(model.adapter_path, read_json(Path(model.adapter_path) / CONFIG))
    if moments:
        check_moments(Path(model.adapter_path))


def check_not_quantised(folder: str) -> None:
    """Check that a model's weights are numbers that gradients can be taken through. Raises `ModelError`."""
    if "quantization_config" in read_json(Path(folder) / "config.json"):
        raise ModelError(f"{folder}: is quantised; a warm-up, and gradients, take a model that is not")


def check_plain_lora(where: str, config: Mapping[str, Any]) -> None:
    """Check the configuration of an adapter. Raises `ModelError` for anything but LoRA on linear layers alone."""
    if (method := config.get("peft_type")) != "LORA":
        raise ModelError(f"{where}: is of the method {method}; gradients are taken of LoRA alone")
    odd = {
        "use_dora": config.get("use_dora"),
        "modules_to_save": config.get("modules_to_save"),
        "trainable_token_indices": config.get("trainable_token_indices"),
        "bias": config.get("bias", "none") != "none",
        "lora_bias": config.get("lora_bias"),
        "target_parameters": config.get("target_parameters"),
    }
    if found := [name for name, value in odd.items() if value]:
        raise ModelError(f"{where}: {found[0]} is set; gradients are taken of plain LoRA layers alone")
