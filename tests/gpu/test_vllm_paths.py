"""vLLM on a GPU: the asked path, the classic path and transformers in float32 agree; bfloat16 noise is measured."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from davir_ray.coreset.cut_noise import ROUNDING
from davir_ray.logprobs.engine import TokenSequence
from tests.gpu.real_model import MODEL, gaps

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed"),
]

SAME_ENGINE = 1e-4
"""Nats a token between two paths of one float32 engine: the head runs on other numbers of rows."""
OTHER_ENGINE = 1e-3
"""Nats a token between vLLM and transformers in float32, on a model of 30 layers; TF32 would be off by ten times it."""


def save_llama(folder, vocab_size: int, positions: int) -> str:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@contextmanager
def engine(path: str = MODEL, kind: type | None = None, **settings) -> Iterator:
    from davir_ray.logprobs.vllm.engine import VllmEngine

    arguments = {"dtype": "float32", "max_length": 1024, "gpu_memory_utilization": 0.5} | settings
    arguments["engine_args"] = {"enforce_eager": True} | arguments.get("engine_args", {})
    made = (kind or VllmEngine)(path, **arguments)
    try:
        yield made
    finally:
        made.close()


def test_asked_classic_and_transformers_agree_in_float32(sequences, expected):
    with engine() as vllm:
        assert vllm.asks, "the V2 runner is not there: this vLLM measures through the classic path alone"
        asked = vllm.logprobs(sequences)
        vllm.asks = False
        classic = vllm.logprobs(sequences)
        backwards = vllm.logprobs(sequences[::-1])[::-1]
    print(f"asked - classic: {gaps(asked, classic).max():.2e}, to plain: {gaps(asked, expected).max():.2e}")
    assert gaps(asked, classic).max() < SAME_ENGINE
    assert gaps(classic, backwards).max() < SAME_ENGINE
    assert gaps(asked, expected).max() < OTHER_ENGINE


def test_the_v1_runner_agrees(sequences, expected, monkeypatch):
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    with engine() as vllm:
        assert not vllm.asks
        assert gaps(vllm.logprobs(sequences), expected).max() < OTHER_ENGINE


def test_what_the_asked_path_leaves_out_is_measured_through_the_classic_one(sequences, expected):
    from davir_ray.logprobs.vllm.engine import VllmEngine

    class Forgetful(VllmEngine):
        """Loses every second answer, as a prefill that starts past the first asked row does."""

        def _ask(self, sequences):
            return [None if i % 2 else values for i, values in enumerate(super()._ask(sequences))]

    with engine(kind=Forgetful) as vllm:
        found = vllm.logprobs(sequences)
    assert gaps(found, expected).max() < OTHER_ENGINE


def test_bfloat16_noise_is_what_the_closing_table_takes_it_for(sequences, expected):
    with engine(dtype="bfloat16") as vllm:
        found = vllm.logprobs(sequences)
        again = vllm.logprobs(sequences[::-1])[::-1]
    noise, repeat = gaps(found, expected), gaps(found, again)
    sums = [(a - b).sum() / len(a) ** 0.5 for a, b in zip(found, expected, strict=True)]
    row = np.sqrt(np.mean(np.square(sums)))
    print(
        f"bfloat16 to float32: mean {noise.mean():.4f}, worst {noise.max():.4f} nats a token; a row's error over the "
        f"root of its tokens {row:.4f}; between two orders of the batch: mean {repeat.mean():.4f}"
    )
    assert row < 1.5 * ROUNDING["bfloat16"]
    assert repeat.mean() <= noise.mean() * 2


@pytest.mark.parametrize("runner", ["0", "1"])
def test_the_longest_sequence_over_a_large_vocabulary_does_not_kill_the_engine(tmp_path, monkeypatch, runner):
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", runner)
    path = save_llama(tmp_path / "large", vocab_size=151_936, positions=16_384)
    ids = np.arange(16_384, dtype=np.int32)
    sequence = TokenSequence(ids, ids > 0)
    with engine(path, dtype="bfloat16", max_length=16_384, gpu_memory_utilization=0.85) as vllm:
        found = vllm.logprobs([sequence] * 4)
    assert all(np.isfinite(one).all() and len(one) == 16_383 for one in found)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_give_the_numbers_of_one(sequences, expected):
    with engine(tensor_parallel_size=2) as vllm:
        found = vllm.logprobs(sequences)
    assert gaps(found, expected).max() < OTHER_ENGINE
