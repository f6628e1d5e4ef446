"""A PEFT LoRA adapter on disk: what it changes, and whether it fits a model."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from davir_ray.errors import EngineError, ModelError
from davir_ray.models.safetensors_header import Shapes, tensor_shapes

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MOMENTS = "moments.safetensors"
"""Beside the adapter of a warm-up checkpoint: the moments of the optimiser (see influence/moments.py)."""
UNKNOWN_TO_VLLM = ("lm_head", "embed_tokens")
"""vLLM applies an adapter of the head to sampled positions only, and has none of the embeddings."""
HIGHEST_RANK_OF_VLLM = 512
"""The last of `vllm.config.lora.MaxLoRARanks`."""
TIED = "lm_head"
"""The one module that a checkpoint may leave out: where the head shares the embedding's weights."""


@dataclass(frozen=True)
class Adapter:
    """`shapes` maps each adapted linear module to the [out, in] of the matrix it was made for.

    rank: the highest of any module. names: last parts of the names of all that is adapted, as in `q_proj`.
    whole: modules whose weights the adapter replaces (PEFT saves embeddings so that were resized), with their shapes.
    made_for: what `adapter_config.json` calls its base; empty where it says nothing.
    """

    folder: Path
    rank: int
    names: frozenset[str]
    shapes: Shapes
    whole: Shapes
    made_for: str


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder holds an adapter and no model."""
    return (folder / CONFIG).exists() and not (folder / "config.json").exists()


def read_adapter(folder: str | Path) -> Adapter:
    """Read an adapter's headers. Raises `ModelError` for anything but a LoRA in safetensors."""
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            pickled = name == WEIGHTS and (folder / "adapter_model.bin").exists()
            hint = "; adapter_model.bin is a pickle, and only safetensors are read" if pickled else ""
            raise ModelError(f"{folder}: has no {name}; expected a PEFT adapter{hint}")
    config = read_json(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"{folder / CONFIG}: peft_type is {config.get('peft_type')!r}; only LORA is supported"
        )
    tensors = tensor_shapes(folder / WEIGHTS)
    ranks = _ranks(config, folder / CONFIG)
    _check_ranks(tensors, ranks, folder)
    names = frozenset(_module(name).rsplit(".", 1)[-1] for name in tensors)
    whole = {_module(name): shape for name, shape in tensors.items() if ".lora_" not in name}
    made_for = str(config.get("base_model_name_or_path") or "")
    return Adapter(folder, max(ranks.values()), names, _linear_shapes(tensors), whole, made_for)


def check_fit(adapter: Adapter, model: Path, weights: Shapes) -> None:
    """Compare the adapter's shapes with those of the model's tensors that go by the same names.

    Raises `ModelError` that names both sizes.
    """
    _check_whole(adapter, model, weights)
    known = {module for module in adapter.shapes if f"{module}.weight" in weights}
    missing = {module for module in adapter.shapes.keys() - known if module != TIED}
    # Some checkpoints name their tensors otherwise than their modules: then nothing can be said here.
    if known and missing:
        raise ModelError(f"{adapter.folder}: does not fit {model}, which has no {min(missing)}.weight")
    for module in sorted(known):
        ours, theirs = adapter.shapes[module], weights[f"{module}.weight"]
        if sorted(ours) != sorted(theirs):  # some architectures store the transpose
            raise ModelError(
                f"{adapter.folder}: does not fit {model}: {module} is {ours} in the adapter and "
                f"{theirs} in the model"
            )


def check_vllm_can(adapter: Adapter) -> None:
    """Check that vLLM can measure with an adapter. Raises `EngineError`."""
    refused = sorted(adapter.names.intersection(UNKNOWN_TO_VLLM))
    if refused:
        raise EngineError(
            f"{adapter.folder}: adapts {', '.join(refused)}, which vLLM cannot measure; "
            "set engine.type to transformers, or merge the adapter into its model"
        )
    if adapter.rank > HIGHEST_RANK_OF_VLLM:
        raise EngineError(
            f"{adapter.folder}: its rank {adapter.rank} is above vLLM's {HIGHEST_RANK_OF_VLLM}; "
            "set engine.type to transformers, or merge the adapter into its model"
        )


def _check_whole(adapter: Adapter, model: Path, weights: Shapes) -> None:
    """Refuse embeddings of another size: PEFT itself cannot put them over a model that was not resized as well."""
    for module, ours in sorted(adapter.whole.items()):
        theirs = weights.get(f"{module}.weight")
        if theirs is not None and ours != theirs:
            raise ModelError(
                f"{adapter.folder}: does not fit {model}: {module} is {ours} in the adapter and {theirs} in the "
                "model; where tokens were added before it was trained, merge it into its resized model (PEFT's "
                "merge_and_unload) and name the merged folder instead"
            )


def _ranks(config: dict[str, Any], path: Path) -> dict[str, int]:
    """Return the ranks that a config names: that of all modules under an empty name, others by PEFT's pattern."""
    ranks = {"": config.get("r"), **(config.get("rank_pattern") or {})}
    for pattern, rank in ranks.items():
        if not isinstance(rank, int) or rank < 1:
            where = f"rank_pattern[{pattern!r}]" if pattern else "r"
            raise ModelError(f"{path}: {where} is {rank!r}; expected the rank of the adapter, a whole number")
    return ranks


def _check_ranks(tensors: Shapes, ranks: dict[str, int], folder: Path) -> None:
    """Compare the ranks that a config names with those of the tensors."""
    for name, shape in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        module = _module(name)
        named = next((rank for key, rank in ranks.items() if key and _is_named(module, key)), ranks[""])
        if shape[0] != named:
            raise ModelError(
                f"{folder / CONFIG}: says rank {named} (r, rank_pattern) for {module}, and {WEIGHTS} holds rank "
                f"{shape[0]}; the two are not of one training"
            )


def _is_named(module: str, pattern: str) -> bool:
    """Tell whether a pattern of PEFT (a regular expression for the end of a name) names a module."""
    try:
        return re.fullmatch(rf"(.*\.)?({pattern})", module) is not None
    except re.error:
        return False


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises `ModelError`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return value


def _linear_shapes(tensors: Shapes) -> Shapes:
    """Combine each lora_A [rank, in] and lora_B [out, rank] of a linear module."""
    pairs = {
        _module(name): (tensors.get(name.replace(".lora_A.", ".lora_B.")), shape)
        for name, shape in tensors.items()
        if name.endswith(".lora_A.weight")
    }
    return {module: [b[0], a[1]] for module, (b, a) in pairs.items() if b and len(b) == len(a) == 2}


def _module(name: str) -> str:
    """Name the module that a tensor of an adapter belongs to."""
    module = name.removeprefix("base_model.model.").partition(".lora_")[0]
    return module.removesuffix(".weight")
