"""Where a model lies, and what it is: folders, hub ids and URIs become a local folder and a content hash.

The hash is over config.json and the safetensors (and the adapter's), whatever the folder is called, so that
measurements stay valid when a model moves. Weights must be safetensors.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from davir_ray.config import ModelConfig, ModelsConfig
from davir_ray.errors import ModelError, ModelNotFound
from davir_ray.models.adapter import CONFIG as ADAPTER_CONFIG
from davir_ray.models.adapter import MOMENTS, Adapter, check_fit, is_adapter, read_adapter, read_json
from davir_ray.models.adapter import WEIGHTS as ADAPTER_WEIGHTS
from davir_ray.models.fetch import NO_WEIGHTS, fetch, is_wanted
from davir_ray.models.safetensors_header import Shapes, tensor_shapes
from davir_ray.schema import ROLES, model_names

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt")
LOCATION_KEYS = ("_name_or_path", "base_model_name_or_path", "transformers_version")
"""Keys of a config that tell where or with what it was saved, not what the model computes."""
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, MOMENTS)
"""What of an adapter is told by its identity: moments are a part of what is measured under a warm-up checkpoint."""
INDEX = "model.safetensors.index.json"
COUNTED_ROPE = frozenset({"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"})
"""Rotary embeddings whose `max_position_embeddings` has their factor in it already."""
ALONE = (
    "is known by its identity alone, and is needed here: to measure or train with it, name its folder in the recipe "
    "and leave `identity` out"
)
CACHE = Path("~/.cache/davir_ray")
"""Where models that come from a URI are kept."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on this machine's disk, or one that is known by its identity alone, whose paths are empty.

    model_path: folder with config.json and *.safetensors. adapter_path: folder of a LoRA adapter over it.
    identity: hash of the content of both, in hex. tokenizer_path: the adapter's folder where it brings a
    tokenizer, else the model's, else (for a reference) the base's. doubt: what speaks against the two belonging
    together, in words; empty if nothing does.
    """

    model_path: str
    adapter_path: str | None
    identity: str
    tokenizer_path: str
    doubt: str = ""

    def check_here(self) -> None:
        """Check that it can be loaded. Raises `ModelError` for one that is known by its identity alone."""
        if not self.model_path:
            raise ModelError(f"the model {self.identity} {ALONE}")

    @property
    def model_type(self) -> str:
        """The architecture's name in config.json, such as `llama`; empty for a model that is not here."""
        return (
            ""
            if not self.model_path
            else str(read_json(Path(self.model_path) / "config.json").get("model_type", ""))
        )

    @property
    def positions(self) -> int | None:
        """The longest sequence that the model takes, in tokens (see `positions_of`)."""
        return positions_of(read_json(Path(self.model_path) / "config.json"))


def positions_of(config: Mapping[str, Any]) -> int | None:
    """Read from a model's config the longest sequence that it takes, in tokens; None where it sets no limit.

    Both engines go by it. As in vLLM, scaled rotary embeddings reach further by their factor, but for the kinds whose
    configs count it already. A sliding window is no limit: it moves along.
    """
    config = config.get("text_config") or config
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if not isinstance(positions, int):
        return None
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    parts = [rope, *(part for part in rope.values() if isinstance(part, dict))]  # one a kind of layer
    factors = [part.get("factor") or 1.0 for part in parts if _stretches(part)]
    scaled = not str(config.get("model_type", "")).startswith("gemma3")  # its positions are scaled already
    return int(positions * max(factors, default=1.0)) if scaled else positions


def _stretches(rope: Mapping[str, Any]) -> bool:
    return (rope.get("rope_type") or rope.get("type")) not in (None, "default", *COUNTED_ROPE)


Models = Mapping[str, tuple[ResolvedModel, ...]]
"""What a model is called -> it; `reference` alone may be several, one a fold. The order is that of `ROLES`."""


def resolve_all(
    models: ModelsConfig,
    cache_dir: str | Path = CACHE,
    measured_under: Callable[[], Mapping[str, Sequence[str]]] | None = None,
) -> Models:
    """Resolve the models of all roles that are named; those of a series are numbered.

    measured_under: returns the identities of all but the base, by name, for who loads none: asked where they cannot be
    had.
    """
    base = _known_base(models.base, cache_dir) if models.base.identity else resolve(models.base, cache_dir)
    found: dict[str, tuple[ResolvedModel, ...]] = {"base": (base,)}
    for role in ROLES[1:]:
        configs = models.all_of(role)
        names = model_names(role, len(configs))
        try:
            name = models.base.model_name_or_path
            some = [_known(config) or resolve_reference(base, config, cache_dir, name) for config in configs]
        except ModelNotFound as error:
            known = measured_under() if measured_under else {}
            if not all(known.get(name) for name in names):
                raise
            some = [_known_by(identity, str(error)) for name in names for identity in known[name]]
        each = len(some) // max(len(names), 1)
        found |= {name: tuple(some[at * each : (at + 1) * each]) for at, name in enumerate(names)}
    return found


def _known_base(config: ModelConfig, cache_dir: str | Path) -> ResolvedModel:
    """Return a base that is known by its identity alone, and its tokenizer. Raises `ModelError` if that is missing."""
    return ResolvedModel("", None, config.identity or "", tokenizer_folder(config, cache_dir))


def _known(config: ModelConfig) -> ResolvedModel | None:
    """Return a model that is known by its identity alone; None for one that has to be here."""
    return None if config.identity is None else ResolvedModel("", None, config.identity, "")


def _known_by(identity: str, why: str) -> ResolvedModel:
    """Return a model that nobody can load, for what was measured under it."""
    return ResolvedModel("", None, identity, "", f"{why}; what was measured under it is used")


def resolve_reference(
    base: ResolvedModel, config: ModelConfig, cache_dir: str | Path = CACHE, base_name: str = ""
) -> ResolvedModel:
    """Resolve a reference; a folder that holds only an adapter goes over the base.

    base_name: what the recipe calls the base, which an adapter may name as its own.
    """
    _check_here(config)
    folder = fetch(config.model_name_or_path, config.revision, cache_dir)
    if not is_adapter(folder):
        reference = resolve(config, cache_dir)
        has_own = _has_tokenizer(Path(reference.tokenizer_path))
        return reference if has_own else replace(reference, tokenizer_path=base.tokenizer_path)
    if base.adapter_path or config.adapter_name_or_path:
        raise ModelError(
            f"{folder}: is an adapter, and there is a second one; merge one of them into its model"
        )
    return _describe(Path(base.model_path), folder, base_name)


def resolve(config: ModelConfig, cache_dir: str | Path = CACHE) -> ResolvedModel:
    """Bring a model to this machine, check that it can be used, and hash it. Raises `ModelError`."""
    _check_here(config)
    folder = fetch(config.model_name_or_path, config.revision, cache_dir)
    if is_adapter(folder):
        raise ModelError(
            f"{folder}: holds only an adapter, and a model is needed here; give the model under "
            "`model_name_or_path` and this folder under `adapter_name_or_path`"
        )
    adapter = config.adapter_name_or_path
    return _describe(folder, fetch(adapter, None, cache_dir) if adapter else None, config.model_name_or_path)


def _check_here(config: ModelConfig) -> None:
    if config.identity is not None:
        raise ModelError(f"{config.model_name_or_path} ({config.identity}) {ALONE}")


def tokenizer_folder(config: ModelConfig, cache_dir: str | Path = CACHE) -> str:
    """Bring a model's tokenizer to this machine without its weights, where it is not here. Raises `ModelError`."""
    adapter = config.adapter_name_or_path
    if adapter and _has_tokenizer(folder := fetch(adapter, None, cache_dir, NO_WEIGHTS)):
        return str(folder)
    return str(fetch(config.model_name_or_path, config.revision, cache_dir, NO_WEIGHTS))


def _describe(folder: Path, adapter: Path | None, name: str) -> ResolvedModel:
    """Check a model in a folder, with an adapter over it or none. name: what the recipe calls the model."""
    _check_files(folder)
    weights = weight_shapes(folder)
    doubt = ""
    if adapter:
        read = read_adapter(adapter)
        check_fit(read, folder, weights)
        doubt = _doubt(read, folder, name)
    tokenizer = adapter if adapter and _has_tokenizer(adapter) else folder
    return ResolvedModel(
        str(folder), str(adapter) if adapter else None, _identity(folder, adapter), str(tokenizer), doubt
    )


def _doubt(adapter: Adapter, folder: Path, name: str) -> str:
    """Say where an adapter names another base than the one that it is put over; empty where it does not.

    A folder that is here is compared by its content. A name from elsewhere is compared by its last part alone: the
    same model lies under another path on another machine. Raises `ModelError` for another architecture.
    """
    made_for = adapter.made_for
    if not made_for or made_for in (name, str(folder)):
        return ""
    other = Path(made_for).expanduser()
    if (other / "config.json").is_file() and weight_files(other):
        ours, theirs = (read_json(one / "config.json").get("model_type") for one in (folder, other))
        if ours != theirs:
            raise ModelError(
                f"{adapter.folder}: was made for {made_for}, a {theirs}; {folder} is a {ours} (model_type)"
            )
        if _identity(other, None) == _identity(folder, None):
            return ""
        return f"{adapter.folder} was made for {made_for}, and {folder} is another model (other weights or config)"
    if _last_part(made_for) in (_last_part(name), folder.name):
        return ""
    return (
        f"{adapter.folder} was made for {made_for} (adapter_config.json); whether {folder} is the same model cannot "
        "be known here"
    )


def _last_part(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1]


# Checking


def _check_files(folder: Path) -> None:
    """Check that a folder is a whole model in safetensors, and nothing else."""
    if not _has(folder, "*.safetensors"):
        raise ModelError(f"{folder}: {_other_weights(folder)}")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: has no config.json; expected a model as `save_pretrained` writes it")
    if (folder / ADAPTER_CONFIG).exists():
        raise ModelError(f"{folder}: holds a model and an adapter; give each a folder of its own")
    missing = sorted(name for name in indexed_files(folder) or () if not (folder / name).is_file())
    if missing:
        raise ModelError(f"{folder}: lacks {missing[0]}, which {INDEX} names")


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
    paths = [folder / "config.json", *weight_files(folder)]
    if adapter:
        paths += [path for name in ADAPTER_FILES if (path := adapter / name).is_file()]
    with ThreadPoolExecutor(max_workers=8) as pool:
        digests = list(pool.map(_content, paths))
    parts = [[path.name, digest] for path, digest in zip(paths, digests, strict=True)]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def weight_shapes(folder: Path) -> Shapes:
    """Return the tensors of a model folder by name, with their shapes."""
    return {name: shape for path in weight_files(folder) for name, shape in tensor_shapes(path).items()}


def indexed_files(folder: Path) -> set[str] | None:
    """Return the names of the safetensors that a model's index names; None where it has no index."""
    index = folder / INDEX
    return set(read_json(index)["weight_map"].values()) if index.exists() else None


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors of a model folder."""
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
