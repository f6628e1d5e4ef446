"""What vLLM must know of LoRA adapters before it starts."""

from collections.abc import Sequence
from typing import Any, get_args

from vllm.config.lora import MaxLoRARanks

from davir_ray.models.adapter import check_vllm_can, read_adapter


def lora_arguments(adapter_paths: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of `LLM` for adapters that are used one at a time.

    Without `lora_target_modules` vLLM wraps the head too, and its wrapped head cannot answer for prompts. Raises
    `EngineError` for an adapter that vLLM cannot apply.
    """
    adapters = [read_adapter(path) for path in adapter_paths]
    for adapter in adapters:
        check_vllm_can(adapter)
    highest = max(adapter.rank for adapter in adapters)
    return {
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": min(rank for rank in get_args(MaxLoRARanks) if rank >= highest),
        "lora_target_modules": sorted({name for adapter in adapters for name in adapter.names}),
    }
