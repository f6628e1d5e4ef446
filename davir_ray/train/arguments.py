"""The recipe in TRL's words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from torch import nn
from transformers.pytorch_utils import Conv1D
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.sft_config import SFTConfig

from davir_ray.config import LoraConfig, TrainConfig
from davir_ray.errors import ModelError
from davir_ray.train.deepspeed import deepspeed_config
from davir_ray.train.settings import beta_of, dtype_of, learning_rate_of


def arguments_of(
    train: TrainConfig, output_dir: str, device: str, *, max_length: int, evaluates: bool, resumes: bool
) -> SFTConfig | DPOConfig:
    """Return TRL's configuration. output_dir: a folder of this node, for checkpoints on their way to the run's.
    max_length: of a packed sequence.
    """
    common = {
        **_common(train, output_dir, device),
        **_when(train, evaluates, resumes),
        "deepspeed": deepspeed_config(train),
    }
    if train.objective == "sft":
        # Rows come tokenised and labelled; only packing is left to prepare.
        return SFTConfig(
            **common,
            max_length=max_length if train.packing else None,
            packing=train.packing,
            dataset_kwargs={"skip_prepare_dataset": not train.packing},
        )
    return DPOConfig(
        **common,
        max_length=None,
        beta=beta_of(train),
        loss_type=[train.loss_type],
        precompute_ref_log_probs=True,
    )


def _common(train: TrainConfig, output_dir: str, device: str) -> dict[str, Any]:
    return {
        "output_dir": output_dir,
        "per_device_train_batch_size": train.per_device_train_batch_size,
        "per_device_eval_batch_size": train.per_device_eval_batch_size,
        "gradient_accumulation_steps": train.gradient_accumulation_steps,
        "gradient_checkpointing": train.gradient_checkpointing,
        "learning_rate": learning_rate_of(train),
        "lr_scheduler_type": train.lr_scheduler_type,
        "warmup_steps": train.warmup_steps,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "num_train_epochs": train.num_train_epochs,
        "max_steps": train.max_steps or -1,
        "seed": train.seed,
        "train_sampling_strategy": train.train_sampling_strategy,
        "bf16": dtype_of(train, device) == "bfloat16",
        "use_cpu": device == "cpu",
        "report_to": list(train.report_to) or "none",
        "remove_unused_columns": False,
        "dataloader_pin_memory": device == "cuda",
        "disable_tqdm": True,
        "logging_nan_inf_filter": False,  # a loss that is not a number is told
    }


def _when(train: TrainConfig, evaluates: bool, resumes: bool) -> dict[str, Any]:
    """Say when to log, evaluate and save; a run that resumes has been evaluated at its start."""
    schedule: dict[str, Any] = {
        "logging_steps": train.logging_steps,
        "logging_first_step": True,
        "save_strategy": "steps" if train.save_steps else "epoch",
        "save_total_limit": 1,
        "eval_strategy": "no",
    }
    if train.save_steps:
        schedule["save_steps"] = train.save_steps
    if evaluates:
        schedule |= {
            "eval_strategy": "steps" if train.eval_steps else "epoch",
            "eval_on_start": not resumes,
        }
        if train.eval_steps:
            schedule["eval_steps"] = train.eval_steps
    return schedule


def load_dtype(train: TrainConfig, device: str) -> torch.dtype:
    """Return the dtype of the weights: float32 wherever nobody else keeps a float32 copy of what is trained."""
    config = deepspeed_config(train) or {}
    enabled = config.get("bf16", {}).get("enabled", False)
    keeps_copy = enabled in (True, "auto") and dtype_of(train, device) == "bfloat16"
    return torch.bfloat16 if keeps_copy else torch.float32


def peft_config(lora: LoraConfig | None) -> PeftLoraConfig | None:
    """Return PEFT's configuration of an adapter."""
    if lora is None:
        return None
    modules = lora.target_modules
    return PeftLoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        layers_to_transform=None if lora.layers_to_transform is None else list(lora.layers_to_transform),
        task_type="CAUSAL_LM",
    )


@contextmanager
def told_what_fits(model: nn.Module, setting: str) -> Iterator[None]:
    """Raise `ModelError` with the names that a model has where an adapter fits none of its modules.

    setting: the section of the recipe that describes the adapter.
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(
            "Target modules"
        ):  # PEFT's words since 0.19, where it has no class for it
            raise
        linear = (name for name, one in model.named_modules() if isinstance(one, nn.Linear | Conv1D))
        names = {name.rpartition(".")[2] for name in linear}
        raise ModelError(
            f"{setting}.target_modules: names no module of the model, whose linear layers are called "
            f"{', '.join(sorted(names))}"
        ) from error
