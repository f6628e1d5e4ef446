"""Where a model lies, and what it is: folders, hub ids and URIs become a local folder and a content hash.

The hash is over config.json and the safetensors (and the adapter's), whatever the folder is called, so that
measurements stay valid when a model moves. Weights must be safetensors.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from davir_ray.adapter import CONFIG as ADAPTER_CONFIG
from davir_ray.adapter import WEIGHTS as ADAPTER_WEIGHTS
from davir_ray.adapter import check_fit, is_adapter, read_adapter, read_json
from davir_ray.config import ModelConfig, ModelsConfig
from davir_ray.errors import ModelError
from davir_ray.model_files import fetch, is_wanted
from davir_ray.safetensors_header import tensor_shapes

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt")
LOCATION_KEYS = ("_name_or_path", "base_model_name_or_path", "transformers_version")
"""Keys of a config that tell where or with what it was saved, not what the model computes."""
CACHE = Path("~/.cache/davir_ray")
"""Where models that come from a URI are kept."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on this machine's disk.

    model_path: folder with config.json and *.safetensors. adapter_path: folder of a LoRA adapter over it.
    identity: hash of the content of both, in hex. tokenizer_path: the adapter's folder where it brings a
    tokenizer, else the model's, else (for a reference) the base's.
    """

    model_path: str
    adapter_path: str | None
    identity: str
    tokenizer_path: str

    @property
    def model_type(self) -> str:
        """The architecture's name in config.json, such as `llama`."""
        return str(read_json(Path(self.model_path) / "config.json").get("model_type", ""))


def resolve_all(
    models: ModelsConfig, cache_dir: str | Path = CACHE
) -> tuple[ResolvedModel, tuple[ResolvedModel, ...]]:
    """Resolve the base, and the reference of each fold (one, if there are no folds)."""
    base = resolve(models.base, cache_dir)
    return base, tuple(resolve_reference(base, config, cache_dir) for config in models.references)


def resolve_reference(
    base: ResolvedModel, config: ModelConfig, cache_dir: str | Path = CACHE
) -> ResolvedModel:
    """Resolve a reference; a folder that holds only an adapter goes over the base."""
    folder = fetch(config.model_name_or_path, config.revision, cache_dir)
    if not is_adapter(folder):
        reference = resolve(config, cache_dir)
        has_own = _has_tokenizer(Path(reference.tokenizer_path))
        return reference if has_own else replace(reference, tokenizer_path=base.tokenizer_path)
    if base.adapter_path or config.adapter_name_or_path:
        raise ModelError(
            f"{folder}: is an adapter, and there is a second one; merge one of them into its model"
        )
    return _describe(Path(base.model_path), folder)


def resolve(config: ModelConfig, cache_dir: str | Path = CACHE) -> ResolvedModel:
    """Bring a model to this machine, check that it can be used, and hash it. Raises `ModelError`."""
    folder = fetch(config.model_name_or_path, config.revision, cache_dir)
    if is_adapter(folder):
        raise ModelError(
            f"{folder}: holds only an adapter, and a model is needed here; give the model under "
            "`model_name_or_path` and this folder under `adapter_name_or_path`"
        )
    if config.adapter_name_or_path is None:
        return _describe(folder, None)
    return _describe(folder, fetch(config.adapter_name_or_path, None, cache_dir))


def _describe(folder: Path, adapter: Path | None) -> ResolvedModel:
    _check_files(folder)
    weights = {name: shape for path in _weights(folder) for name, shape in tensor_shapes(path).items()}
    if adapter:
        check_fit(read_adapter(adapter), folder, weights)
    tokenizer = adapter if adapter and _has_tokenizer(adapter) else folder
    return ResolvedModel(
        str(folder), str(adapter) if adapter else None, _identity(folder, adapter), str(tokenizer)
    )


# Checking


def _check_files(folder: Path) -> None:
    """Check that a folder is a whole model in safetensors, and nothing else."""
    if not _has(folder, "*.safetensors"):
        raise ModelError(f"{folder}: {_other_weights(folder)}")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: has no config.json; expected a model as `save_pretrained` writes it")
    if (folder / ADAPTER_CONFIG).exists():
        raise ModelError(f"{folder}: holds a model and an adapter; give each a folder of its own")
    index = folder / "model.safetensors.index.json"
    shards = set(read_json(index)["weight_map"].values()) if index.exists() else set()
    missing = sorted(name for name in shards if not (folder / name).is_file())
    if missing:
        raise ModelError(f"{folder}: lacks {missing[0]}, which {index.name} names")


def _other_weights(folder: Path) -> str:
    if _has(folder, "*.bin", "*.pt", "*.pth"):
        return (
            "its weights are pickles, which can run code when they are loaded; only safetensors are read "
            "(loading and saving the model with transformers 5 converts them)"
        )
    if _has(folder, "*.gguf"):
        return "its weights are GGUF; only safetensors are read"
    return "has no *.safetensors; expected a model as `save_pretrained` writes it"


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).exists() for name in TOKENIZER_FILES)


def _has(folder: Path, *patterns: str) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in patterns)


# Identity


def _identity(folder: Path, adapter: Path | None) -> str:
    """Hash names, sizes and content. Files are read at once: hashing large weights is worth the threads."""
    paths = [folder / "config.json", *_weights(folder)]
    paths += [adapter / ADAPTER_CONFIG, adapter / ADAPTER_WEIGHTS] if adapter else []
    with ThreadPoolExecutor(max_workers=8) as pool:
        digests = list(pool.map(_content, paths))
    parts = [[path.name, digest] for path, digest in zip(paths, digests, strict=True)]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _weights(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.safetensors") if is_wanted(path.name))


def _content(path: Path) -> str:
    if path.suffix == ".json":
        config = {key: value for key, value in read_json(path).items() if key not in LOCATION_KEYS}
        return hashlib.blake2b(json.dumps(config, sort_keys=True).encode(), digest_size=32).hexdigest()
    stat = path.stat()
    return _file_hash(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _file_hash(path: str, size: int, mtime_ns: int) -> str:
    """Hash a file once a process; size and time of change are there to notice that it changed."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32))
    return f"{size}:{digest.hexdigest()}"
