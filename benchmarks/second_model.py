"""How long it takes until the second model of a run is measured: by an engine that is switched, or one that is started.

    .venv/bin/python -m benchmarks.second_model --model quickstart/models/smollm2-135m-instruct

For each engine, and for a reference that is a whole model and one that is an adapter over the base:

    weights    reading the reference's weights into memory, and nothing else
    switched   from the last row under the base to the first under the reference, by the engine that measured the base
    started    the same by a process of its own, as before engines were switched; and what of that goes into `imports`
               of libraries, the `load` of the engine and its `first row`

All are seconds; `--eager` starts vLLM without compiled and captured kernels. The models have the sizes of the one that
is named: the reference is that with noise on its weights. vLLM on a CPU does not read tied weights in place, so there
both heads are untied first.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from davir_ray.config import EngineConfig
from davir_ray.logprobs.choice import Choice, build_engine
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.switching import can_switch
from davir_ray.models.resolve import ResolvedModel

LENGTH = 64


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--engines", nargs="+", default=["transformers", "vllm"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # a job of `in_process`, as JSON
    arguments = parser.parse_args()
    if arguments.measure:
        return print(json.dumps(seconds_of(**json.loads(arguments.measure))))
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        base, references = make_models(arguments.model, Path(folder), untied=arguments.device == "cpu")
        for engine in arguments.engines:
            settings = {"engine": engine, "device": arguments.device, "eager": arguments.eager}
            for name, reference in references.items():
                found = compared(settings, base, reference, arguments.rounds)
                figures.append(settings | {"reference": name} | found)
                print(json.dumps(figures[-1]), flush=True)
                if arguments.out:
                    arguments.out.write_text(json.dumps(figures, indent=2) + "\n")
    return None


def make_models(model: str, folder: Path, *, untied: bool) -> tuple[list[Any], dict[str, list[Any]]]:
    """Save a base and its references, each as path and adapter."""
    base = save_tuned(model, folder / "base", noise=0.0, untied=untied)
    tuned = save_tuned(base, folder / "tuned", untied=untied)
    return [base, None], {
        "whole": [tuned, None],
        "adapter": [base, save_adapter(base, folder / "adapter")],
    }


def save_tuned(model: str, folder: Path, *, noise: float = 0.02, untied: bool = False) -> str:
    """Save a copy of a model with noise on its weights, of this share of their deviation."""
    torch.manual_seed(0)
    copy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if untied:
        copy.config.tie_word_embeddings = False
        copy.lm_head.weight = torch.nn.Parameter(copy.lm_head.weight.detach().clone())
    with torch.no_grad():
        for weight in copy.parameters():
            weight.add_(torch.randn_like(weight) * weight.std() * noise)
    copy.save_pretrained(folder)
    return str(folder)


def save_adapter(model: str, folder: Path) -> str:
    """Save a LoRA adapter over a model that changes what it computes."""
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    modules = ["q_proj", "v_proj", "down_proj"]
    adapted = get_peft_model(base, LoraConfig(r=16, target_modules=modules, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.02)
    adapted.save_pretrained(str(folder))
    return str(folder)


def compared(settings: dict[str, Any], base: list[Any], reference: list[Any], rounds: int) -> dict[str, Any]:
    """Time one engine and reference: the median of some rounds, the ways in turn."""
    times = []
    for _ in range(rounds):
        weights = weights_seconds(reference, settings["device"])
        switched = in_process(**settings, models=[base, reference])
        started = in_process(**settings, models=[reference])
        phases = {name: started[name] for name in ("started", "imports", "load", "first row")}
        times.append({"weights": weights, "switched": switched["last"]} | phases)
    seconds = {name: round(float(np.median([one[name] for one in times])), 2) for name in times[0]}
    return seconds | {"started / switched": round(seconds["started"] / seconds["switched"], 1)}


def weights_seconds(model: list[Any], device: str) -> float:
    """Time reading what the reference does not share with the base."""
    path, adapter = model
    if device == "cuda":
        torch.cuda.synchronize()  # makes the context, too
    started = time.monotonic()
    for file in Path(adapter or path).glob("*.safetensors"):
        for weight in load_file(file, device=device).values():
            weight.clone()  # what is mapped only is not read yet
    if device == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - started


def in_process(**job: Any) -> dict[str, float]:
    """Measure in a process of its own; return what it tells, and its seconds up to the first row."""
    begun = time.time()
    command = [sys.executable, "-m", "benchmarks.second_model", "--model", "", "--measure", json.dumps(job)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told | {
        "started": told["measured at"] - begun,
        "imports": told["imported at"] - begun,
        "load": told["made at"] - told["imported at"],
        "first row": told["measured at"] - told["made at"],
    }


def seconds_of(engine: str, device: str, eager: bool, models: list[list[Any]]) -> dict[str, float]:
    """Measure one row under each model in turn; return when the first was there, and the seconds of the last."""
    choice = Choice(engine, "bfloat16" if device == "cuda" else "float32", device, "")
    config = EngineConfig(gpu_memory_utilization=0.5, engine_args={"enforce_eager": True} if eager else {})
    first, *others = (ResolvedModel(path, adapter, "", path) for path, adapter in models)
    assert all(can_switch(choice, config, first, other) for other in others)
    ids = np.arange(1, LENGTH + 1, dtype=np.int32)
    row = [TokenSequence(ids, ids > LENGTH // 2)]
    import_module("davir_ray.logprobs.vllm.engine" if engine == "vllm" else "davir_ray.logprobs.hf.engine")
    told = {"imported at": time.time()}
    built: Any = build_engine(choice, config, first, LENGTH, others)
    told["made at"] = time.time()
    built.logprobs(row)
    told["measured at"] = time.time()
    for other in others:
        built.logprobs(row)
        last = time.monotonic()
        built.switch(other)
        built.logprobs(row)
        told["last"] = time.monotonic() - last
    built.close()
    return told


if __name__ == "__main__":
    main()
