"""The recipe in DeepSpeed's words."""

from typing import Any

from davir_ray.config import TrainConfig

AUTO = "auto"
"""Filled in by transformers from the training arguments."""


def deepspeed_config(train: TrainConfig) -> dict[str, Any] | None:
    """Return the configuration that TRL hands to DeepSpeed; None trains without it.

    A configuration of the user's own is read by `checks.py` and comes here as a mapping.
    """
    if isinstance(train.deepspeed, dict):
        return train.deepspeed
    if train.zero_stage is None:
        return None
    config: dict[str, Any] = {
        "zero_optimization": _zero(train),
        "bf16": {"enabled": AUTO},
        "gradient_clipping": AUTO,
        "gradient_accumulation_steps": AUTO,
        "train_batch_size": AUTO,
        "train_micro_batch_size_per_gpu": AUTO,
        # transformers brings torch's AdamW, the same with and without DeepSpeed
        "zero_allow_untested_optimizer": True,
    }
    if train.offload_optimizer:
        # torch's AdamW on the host is slow; naming the optimiser lets DeepSpeed take its own
        params = {"lr": AUTO, "betas": AUTO, "eps": AUTO, "weight_decay": AUTO}
        config["optimizer"] = {"type": "AdamW", "params": params}
    return config


def _zero(train: TrainConfig) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": train.zero_stage}
    if train.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if train.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if train.offload_param:
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return zero
