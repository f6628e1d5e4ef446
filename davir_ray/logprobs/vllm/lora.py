"""What vLLM must know of a LoRA adapter before it starts."""

from typing import Any, get_args

from vllm.config.lora import MaxLoRARanks

from davir_ray.models.adapter import check_vllm_can, read_adapter


def lora_arguments(adapter_path: str) -> dict[str, Any]:
    """Return the arguments of `LLM` for one adapter. Raises `EngineError` for one that vLLM cannot apply.

    Without `lora_target_modules` vLLM wraps the head too, and its wrapped head cannot answer for prompts.
    """
    adapter = read_adapter(adapter_path)
    check_vllm_can(adapter)
    ranks = [rank for rank in get_args(MaxLoRARanks) if rank >= adapter.rank]
    return {
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": min(ranks),
        "lora_target_modules": sorted(adapter.names),
    }
