"""A PEFT LoRA adapter on disk: what it changes, and whether it fits a model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from davir_ray.errors import ModelError
from davir_ray.safetensors_header import Shapes, tensor_shapes

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
TIED = "lm_head"
"""The one module that a checkpoint may leave out: where the head shares the embedding's weights."""


@dataclass(frozen=True)
class Adapter:
    """`shapes` maps each adapted linear module to the [out, in] of the matrix it was made for.

    rank: the highest of any module. names: last parts of the names of all that is adapted, as in `q_proj`.
    """

    folder: Path
    rank: int
    names: frozenset[str]
    shapes: Shapes


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
    ranks = [config["r"], *(config.get("rank_pattern") or {}).values()]
    names = frozenset(_module(name).rsplit(".", 1)[-1] for name in tensors)
    return Adapter(folder, max(ranks), names, _linear_shapes(tensors))


def check_fit(adapter: Adapter, model: Path, weights: Shapes) -> None:
    """Compare the adapter's shapes with those of the model's tensors that go by the same names."""
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
