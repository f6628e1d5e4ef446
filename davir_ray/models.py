"""Where a model lies, and what it is: folders, hub ids and URIs become a local folder and a content hash.

The hash is over config.json and the safetensors (and the adapter's), whatever the folder is called, so that
measurements stay valid when a model moves. Weights must be safetensors.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from davir_ray.config import ModelConfig, ModelsConfig
from davir_ray.errors import ModelError
from davir_ray.model_files import fetch, is_wanted

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt")
LOCATION_KEYS = ("_name_or_path", "base_model_name_or_path", "transformers_version")
"""Keys of a config that tell where or with what it was saved, not what the model computes."""
CACHE = Path("~/.cache/davir_ray")
"""Where models that come from a URI are kept."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on this machine's disk.

    model_path: folder with config.json and *.safetensors. adapter_path: folder of a LoRA adapter over it.
    identity: hash of the content of both, in hex.
    """

    model_path: str
    adapter_path: str | None
    identity: str

    @property
    def tokenizer_path(self) -> str:
        """The adapter's folder where it brings a tokenizer, else the model's."""
        if self.adapter_path and _has_tokenizer(self.adapter_path):
            return self.adapter_path
        return self.model_path

    @property
    def model_type(self) -> str:
        """The architecture's name in config.json, such as `llama`."""
        return str(_read_json(Path(self.model_path) / "config.json").get("model_type", ""))


def resolve_pair(
    models: ModelsConfig, cache_dir: str | Path = CACHE
) -> tuple[ResolvedModel, ResolvedModel | None]:
    """Resolve base and reference; a reference folder that holds only an adapter goes over the base."""
    base = resolve(models.base, cache_dir)
    if models.reference is None:
        return base, None
    folder = fetch(models.reference.model_name_or_path, models.reference.revision, cache_dir)
    if not _is_adapter_only(folder):
        return base, resolve(models.reference, cache_dir)
    if base.adapter_path or models.reference.adapter_name_or_path:
        raise ModelError(
            f"{folder}: is an adapter, and there is a second one; merge one of them into its model"
        )
    return base, _describe(Path(base.model_path), folder)


def resolve(config: ModelConfig, cache_dir: str | Path = CACHE) -> ResolvedModel:
    """Bring a model to this machine, check that it can be used, and hash it. Raises `ModelError`."""
    folder = fetch(config.model_name_or_path, config.revision, cache_dir)
    if _is_adapter_only(folder):
        raise ModelError(
            f"{folder}: holds only an adapter, and a model is needed here; give the model under "
            "`model_name_or_path` and this folder under `adapter_name_or_path`"
        )
    if config.adapter_name_or_path is None:
        return _describe(folder, None)
    return _describe(folder, fetch(config.adapter_name_or_path, None, cache_dir))


def _describe(folder: Path, adapter: Path | None) -> ResolvedModel:
    _check_model(folder)
    if adapter:
        _check_adapter(adapter)
        _check_fit(folder, adapter)
    return ResolvedModel(str(folder), str(adapter) if adapter else None, _identity(folder, adapter))


# Checking


def _check_model(folder: Path) -> None:
    if _has(folder, "*.safetensors") and (folder / "config.json").is_file():
        if (folder / ADAPTER_FILES[0]).exists():
            raise ModelError(f"{folder}: holds a model and an adapter; give each a folder of its own")
        return
    if _has(folder, "*.bin", "*.pt", "*.pth"):
        raise ModelError(
            f"{folder}: its weights are pickles, which can run code when loaded; only safetensors are read. "
            "Convert with `save_pretrained` of a transformers of this year"
        )
    if _has(folder, "*.gguf"):
        raise ModelError(f"{folder}: its weights are GGUF; only safetensors are read")
    missing = "config.json" if _has(folder, "*.safetensors") else "*.safetensors"
    raise ModelError(f"{folder}: has no {missing}; expected a model as `save_pretrained` writes it")


def _check_adapter(folder: Path) -> None:
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            pickled = name.endswith("safetensors") and (folder / "adapter_model.bin").exists()
            hint = "; adapter_model.bin is a pickle, and only safetensors are read" if pickled else ""
            raise ModelError(f"{folder}: has no {name}; expected a PEFT adapter{hint}")
    kind = _read_json(folder / ADAPTER_FILES[0]).get("peft_type")
    if kind != "LORA":
        raise ModelError(
            f"{folder}/{ADAPTER_FILES[0]}: peft_type is {kind!r}; only LORA adapters are supported"
        )


def _check_fit(folder: Path, adapter: Path) -> None:
    """Compare the adapter's shapes with the model's, where their tensors go by the same names."""
    weights = {name: shape for path in _weights(folder) for name, shape in _shapes(path).items()}
    wanted = _adapted_shapes(adapter)
    known = {module: shape for module, shape in wanted.items() if f"{module}.weight" in weights}
    # Some checkpoints name their tensors otherwise than their modules: then nothing can be said here.
    if known and len(known) < len(wanted):
        module = min(wanted.keys() - known.keys())
        raise ModelError(f"{adapter}: does not fit {folder}, which has no {module}.weight")
    for module, shape in sorted(known.items()):
        if sorted(weights[f"{module}.weight"]) != sorted(shape):
            raise ModelError(
                f"{adapter}: does not fit {folder}: {module} is {shape} in the adapter and "
                f"{weights[f'{module}.weight']} in the model"
            )


def _adapted_shapes(adapter: Path) -> dict[str, list[int]]:
    """Map each adapted module to the [out, in] of the matrix that the adapter was made for."""
    shapes = _shapes(adapter / ADAPTER_FILES[1])
    adapted = {}
    for name, shape in shapes.items():
        if name.endswith(".lora_A.weight") and len(shape) == 2:
            module = name.removesuffix(".lora_A.weight")
            adapted[module.removeprefix("base_model.model.")] = [
                shapes[f"{module}.lora_B.weight"][0],
                shape[1],
            ]
    return adapted


def _shapes(path: Path) -> dict[str, list[int]]:
    """Read the shapes in the header of a safetensors file: its length in 8 bytes, then JSON."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise ModelError(f"{path}: is not a safetensors file, or is cut off") from error


def _is_adapter_only(folder: Path) -> bool:
    return (folder / ADAPTER_FILES[0]).exists() and not (folder / "config.json").exists()


def _has_tokenizer(folder: str) -> bool:
    return any(os.path.exists(os.path.join(folder, name)) for name in TOKENIZER_FILES)


def _has(folder: Path, *patterns: str) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in patterns)


# Identity


def _identity(folder: Path, adapter: Path | None) -> str:
    """Hash names, sizes and content. Files are read at once: hashing large weights is worth the threads."""
    paths = [folder / "config.json", *_weights(folder)]
    paths += [adapter / name for name in ADAPTER_FILES] if adapter else []
    with ThreadPoolExecutor(max_workers=8) as pool:
        digests = list(pool.map(_content, paths))
    parts = [[path.name, digest] for path, digest in zip(paths, digests, strict=True)]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _weights(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.safetensors") if is_wanted(path.name))


def _content(path: Path) -> str:
    if path.suffix == ".json":
        config = {key: value for key, value in _read_json(path).items() if key not in LOCATION_KEYS}
        return hashlib.blake2b(json.dumps(config, sort_keys=True).encode(), digest_size=32).hexdigest()
    stat = path.stat()
    return _file_hash(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _file_hash(path: str, size: int, mtime_ns: int) -> str:
    """Hash a file once a process; size and time of change are there to notice that it changed."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32))
    return f"{size}:{digest.hexdigest()}"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return value
