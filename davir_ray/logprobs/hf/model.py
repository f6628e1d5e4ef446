"""Loading a causal language model, and knowing how far it may take packed batches."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from davir_ray.errors import ModelError
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.models.resolve import positions_of

UNLIMITED = 2**31

PACKABLE = frozenset(
    {
        *("apertus", "cohere", "gemma", "gemma3_text", "gpt2", "gpt_neox", "granite", "llama", "mistral"),
        *("olmo2", "phi", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3", "starcoder2"),
    }
)
"""`model_type`s whose packed results tests/unit/logprobs/hf compares with one row at a time."""

LENGTH_DEPENDENT_ROPE = frozenset({"dynamic", "longrope"})
"""Rotary embeddings that change with the longest position of a batch."""


def load_model(model_path: str, adapter_path: str | None, dtype: str, device: str) -> PreTrainedModel:
    """Load a model for inference, from safetensors alone, without code from its folder. Raises `ModelError`."""
    disable_progress_bar()  # an actor's bars would end up in the output of the job
    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "use_safetensors": True}
    with _loading(model_path):
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            model_path, trust_remote_code=False, **options
        )
    if getattr(model.config, "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")  # the others leave the soft cap out
    if adapter_path:
        model = put_adapter(model, adapter_path)
    model.to(torch.device(device))  # type: ignore[arg-type]
    return model.eval()


@contextmanager
def _loading(path: str) -> Iterator[None]:
    """Let what is raised while a model or an adapter is read name its folder."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be loaded: {error}") from error


@dataclass(frozen=True)
class Takes:
    """What a model takes. positions: of the longest sequence; None where there is no end. vocabulary: ids below it."""

    positions: int | None
    vocabulary: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Takes":
        """Return what a loaded model takes."""
        embeddings: Any = model.get_input_embeddings()
        return cls(positions_of(model.config.to_dict()), int(embeddings.weight.shape[0]))

    def check(self, sequences: Sequence[TokenSequence]) -> None:
        """Refuse on the CPU what a GPU would answer with an error that it does not survive. Raises `ValueError`."""
        for index, one in enumerate(sequences):
            if self.positions is not None and len(one.ids) > self.positions:
                raise ValueError(
                    f"sequence {index}: {len(one.ids)} tokens, but the model takes {self.positions}"
                )
            if one.ids.min() < 0 or one.ids.max() >= self.vocabulary:
                raise ValueError(f"sequence {index}: token ids must lie in 0 to {self.vocabulary - 1}")
            if one.scored[0] or not one.scored.any():
                raise ValueError(f"sequence {index}: needs a scored token, and the first cannot be one")


def packed_limit(model: PreTrainedModel) -> int:
    """Return the longest sequence that may go into a packed batch: 0 if none may."""
    config: PreTrainedConfig = model.config
    if config.model_type not in PACKABLE or depends_on_longest(model):
        return 0
    if getattr(config, "attn_logit_softcapping", None) or getattr(
        config, "use_bidirectional_attention", None
    ):
        return 0
    return getattr(config, "sliding_window", None) or UNLIMITED


def depends_on_longest(model: PreTrainedModel) -> bool:
    """Tell whether a sequence's numbers change with the longest one of its batch."""
    rope = getattr(model.config, "rope_parameters", None) or {}
    parts = [rope, *(part for part in rope.values() if isinstance(part, dict))]  # one a kind of layer
    return any(part.get("rope_type") in LENGTH_DEPENDENT_ROPE for part in parts)


def put_adapter(model: PreTrainedModel, adapter_path: str) -> PreTrainedModel:
    """Put a LoRA adapter over a model, which is changed. Raises `ModelError`.

    In float32 it is merged: the same function, and no slower than the base. bfloat16 weights have 8 bits, so
    that most of an adapter's small change would be rounded away: there it stays apart, in float32.
    """
    if not Path(adapter_path, "adapter_model.safetensors").is_file():
        raise ModelError(f"{adapter_path}: holds no adapter_model.safetensors")
    with _loading(adapter_path):
        adapted: Any = PeftModel.from_pretrained(model, adapter_path, is_trainable=False)
        missing = set(
            adapted.load_adapter(adapter_path, "default").missing_keys
        )  # once more: to be told of them
    placed = {name for name in adapted.state_dict() if ".lora_" in name}
    if placed and placed <= missing:
        raise ModelError(
            f"{adapter_path}: none of its tensors belongs to a module of the model that it is put on"
        )
    adapted = adapted.merge_and_unload() if model.dtype == torch.float32 else adapted.get_base_model()
    assert isinstance(adapted, PreTrainedModel)
    return adapted.eval()


def set_attention(model: PreTrainedModel, name: str) -> None:
    """Switch between the model's own attention and `packed_attention.NAME`."""
    if model.config._attn_implementation != name:
        model.set_attn_implementation(name)
