"""What the defaults of a training come to. Light: the driver needs no trainer to know them."""

from davir_ray.config import TrainConfig

LEARNING_RATE = {"sft": 2e-5, "dpo": 5e-7, "davir_dpo": 5e-7}
"""Of full weights: Alpaca's for a 7B model, and the alignment handbook's for DPO."""
LORA_FACTOR = 10
BETA = {"dpo": 0.1, "davir_dpo": 10.0}
BETA_SIGMOID_NORM = 10.0
"""DPO's 0.1 where a response has 100 tokens."""


def learning_rate_of(train: TrainConfig) -> float:
    """Return the learning rate, or the default of the objective."""
    default = LEARNING_RATE[train.objective] * (LORA_FACTOR if train.lora else 1)
    return train.learning_rate or default


def beta_of(train: TrainConfig) -> float:
    """Return beta, or the default of the objective."""
    default = BETA_SIGMOID_NORM if train.loss_type == "sigmoid_norm" else BETA[train.objective]
    return train.beta or default


def dtype_of(train: TrainConfig, device: str) -> str:
    """Return the dtype that is computed in."""
    if train.dtype != "auto":
        return train.dtype
    return "bfloat16" if device == "cuda" else "float32"
