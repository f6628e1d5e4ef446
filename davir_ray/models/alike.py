"""Whether two models are one architecture with other weights."""

from pathlib import Path
from typing import Any

from davir_ray.errors import ModelError
from davir_ray.models.resolve import LOCATION_KEYS, weight_shapes

INDIFFERENT = (
    *LOCATION_KEYS,
    *("architectures", "dtype", "torch_dtype", "use_cache"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)
"""Keys of a config that do not change what a model computes of given tokens in a given dtype."""


def config_of(folder: str) -> dict[str, Any]:
    """Read the config of a model as transformers completes it, whatever version wrote it. Raises `ModelError`."""
    from transformers import AutoConfig  # torch comes with it, which takes seconds

    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: its config.json cannot be read: {error}") from error
    return config


def differ_in_weights_alone(one: str, other: str) -> bool:
    """Tell whether two model folders have the same architecture, sizes and names of tensors; of no quantised ones."""
    ours, theirs = (
        {key: value for key, value in config_of(folder).items() if key not in INDIFFERENT}
        for folder in (one, other)
    )
    if ours != theirs or "quantization_config" in ours:
        return False
    return weight_shapes(Path(one)) == weight_shapes(Path(other))
