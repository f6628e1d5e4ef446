"""The engines of gpu_throughput.py: ours, a plain padded loop, and lm-eval's backends, each at several batch sizes."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from benchmarks.engine_speed import Score, by_engine, by_lm_eval, by_sketch, lm_eval_requests
from davir_ray.config import EngineConfig
from davir_ray.logprobs.choice import Choice, build_engine
from davir_ray.models.resolve import ResolvedModel

PADDED_TOKENS = (8_192, 32_768)
BATCH_SIZES = (16, 64, 256)
TINY_PADDED_TOKENS = (512,)
TINY_BATCH_SIZES = (4,)


@dataclass(frozen=True)
class Asked:
    """What a backend is built for: a model folder, a device, sequences of at most `longest` tokens.

    tokenizer: a folder with any; lm-eval wants one, and asks it nothing about ids.
    """

    folder: str
    tokenizer: str
    device: str
    longest: int
    tiny: bool

    @property
    def dtype(self) -> str:
        """The dtype that is measured in on the device."""
        return "bfloat16" if self.device == "cuda" else "float32"


def ours(engine: str, asked: Asked) -> dict[str, Score]:
    """Build one of our engines, which choose their batches themselves."""
    choice = Choice(engine, asked.dtype, asked.device, "")
    model = ResolvedModel(asked.folder, None, "", asked.folder)
    return {"": by_engine(build_engine(choice, EngineConfig(), model, asked.longest))}


def padded(asked: Asked) -> dict[str, Score]:
    """Build the plain padded loop: sorted by length, the head on scored positions."""
    model = load_plain(asked)
    sizes = TINY_PADDED_TOKENS if asked.tiny else PADDED_TOKENS
    return {f"{tokens} tokens a batch": by_sketch(model, tokens) for tokens in sizes}


def lm_eval_hf(asked: Asked) -> dict[str, Score]:
    """Build lm-eval's Hugging Face backend."""
    model, tokenizer = load_plain(asked), AutoTokenizer.from_pretrained(asked.tokenizer)
    sizes = TINY_BATCH_SIZES if asked.tiny else BATCH_SIZES
    return {f"batch {size}": by_lm_eval(model, tokenizer, size) for size in sizes}


def load_plain(asked: Asked) -> PreTrainedModel:
    """Load the model with plain transformers."""
    dtype = getattr(torch, asked.dtype)
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(asked.folder, dtype=dtype)
    return cast(PreTrainedModel, model.to(asked.device).eval())


def lm_eval_vllm(asked: Asked) -> dict[str, Score]:
    """Build lm-eval's vLLM backend, whose batches vLLM chooses."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process, whose memory is told
    from lm_eval.models.vllm_causallms import VLLM

    backend = VLLM(
        pretrained=asked.folder,
        tokenizer=asked.tokenizer,
        dtype=asked.dtype,
        max_model_len=asked.longest + 1,
        batch_size="auto",
        **(
            {"kv_cache_memory_bytes": 2**26, "enforce_eager": True}
            if asked.tiny
            else {"gpu_memory_utilization": 0.85}
        ),
    )
    return {
        "": lambda some: [
            -one for one, _ in backend._loglikelihood_tokens(lm_eval_requests(some), disable_tqdm=True)
        ]
    }


BUILD: dict[str, Callable[[Asked], dict[str, Score]]] = {
    "transformers": partial(ours, "transformers"),
    "vllm": partial(ours, "vllm"),
    "padded": padded,
    "lm_eval_hf": lm_eval_hf,
    "lm_eval_vllm": lm_eval_vllm,
}
"""Engine -> what builds it: its ways of making batches by name, each to its losses."""
NEEDED = {"lm_eval_hf": ("lm_eval",), "lm_eval_vllm": ("lm_eval", "vllm"), "vllm": ("vllm",)}


def installed(engines: Sequence[str]) -> list[str]:
    """Keep the engines that can be imported here."""
    return [
        engine
        for engine in engines
        if all(importlib.util.find_spec(one) is not None for one in NEEDED.get(engine, ()))
    ]
