"""vLLM on a GPU: the asked path, the classic path and transformers in float32 agree; bfloat16 noise is measured."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from davir_ray.logprobs.engine import TokenSequence

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm is not installed"),
]

SAME_ENGINE = 1e-3
"""Nats a token between two paths of one float32 engine: the head runs on other numbers of rows."""
OTHER_ENGINE = 1e-2
"""Nats a token between vLLM and transformers in float32: vLLM's attention kernels may round to TF32."""
BFLOAT16 = 0.05
"""Mean nats a token that bfloat16 may be off by, on a random model of this size."""


def save_llama(folder, vocab_size: int = 4096, positions: int = 1024) -> str:
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
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def sequences() -> list[TokenSequence]:
    """Responses, scattered turns, and one scored token alone."""
    random = np.random.default_rng(0)
    made = []
    for index in range(96):
        ids = random.integers(0, 4096, int(random.integers(2, 900))).astype(np.int32)
        position = np.arange(len(ids))
        scored = (position // 20) % 2 == 1 if index % 3 == 0 else position >= len(ids) // 2
        scored[0], scored[-1] = False, True
        made.append(TokenSequence(ids, scored))
    return made


@pytest.fixture(scope="module")
def expected(model, sequences) -> list[np.ndarray]:
    """One row at a time on the CPU, float32."""
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    values = []
    for one in sequences:
        ids = torch.from_numpy(one.ids.astype(np.int64))
        with torch.no_grad():
            logprobs = torch.log_softmax(plain(input_ids=ids[None]).logits[0, :-1].double(), -1)
        values.append(logprobs[range(len(ids) - 1), ids[1:]].numpy()[one.scored[1:]])
    return values


@contextmanager
def engine(path: str, kind: type | None = None, **settings) -> Iterator:
    from davir_ray.logprobs.vllm.engine import VllmEngine

    arguments = {"dtype": "float32", "max_length": 1024, "gpu_memory_utilization": 0.5} | settings
    arguments["engine_args"] = {"enforce_eager": True} | arguments.get("engine_args", {})
    made = (kind or VllmEngine)(path, **arguments)
    try:
        yield made
    finally:
        made.close()


def gaps(found, expected) -> np.ndarray:
    assert [len(one) for one in found] == [len(one) for one in expected]
    return np.concatenate([np.abs(a - b) for a, b in zip(found, expected, strict=True)])


def test_asked_classic_and_transformers_agree_in_float32(model, sequences, expected):
    with engine(model) as vllm:
        assert vllm.asks, "the V2 runner is not there: this vLLM measures through the classic path alone"
        asked = vllm.logprobs(sequences)
        vllm.asks = False
        classic = vllm.logprobs(sequences)
        backwards = vllm.logprobs(sequences[::-1])[::-1]
    print(f"asked - classic: {gaps(asked, classic).max():.2e}, to plain: {gaps(asked, expected).max():.2e}")
    assert gaps(asked, classic).max() < SAME_ENGINE
    assert gaps(classic, backwards).max() < SAME_ENGINE
    assert gaps(asked, expected).max() < OTHER_ENGINE


def test_the_v1_runner_agrees(model, sequences, expected, monkeypatch):
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    with engine(model) as vllm:
        assert not vllm.asks
        assert gaps(vllm.logprobs(sequences), expected).max() < OTHER_ENGINE


def test_what_the_asked_path_leaves_out_is_measured_through_the_classic_one(model, sequences, expected):
    from davir_ray.logprobs.vllm.engine import VllmEngine

    class Forgetful(VllmEngine):
        """Loses every second answer, as a prefill that starts past the first asked row does."""

        def _ask(self, sequences):
            return [None if i % 2 else values for i, values in enumerate(super()._ask(sequences))]

    with engine(model, Forgetful) as vllm:
        found = vllm.logprobs(sequences)
    assert gaps(found, expected).max() < OTHER_ENGINE


def test_transformers_on_the_gpu_agrees_in_float32(model, sequences, expected):
    from davir_ray.logprobs.hf.engine import TransformersEngine

    ours = TransformersEngine(model, dtype="float32", device="cuda")
    found = ours.logprobs(sequences)
    ours.close()
    assert gaps(found, expected).max() < SAME_ENGINE


def test_bfloat16_noise_is_small_and_reported(model, sequences, expected):
    with engine(model, dtype="bfloat16") as vllm:
        found = vllm.logprobs(sequences)
        again = vllm.logprobs(sequences[::-1])[::-1]
    noise, repeat = gaps(found, expected), gaps(found, again)
    sums = np.array([one.sum() for one in found]) - np.array([one.sum() for one in expected])
    print(
        f"bfloat16 to float32: mean {noise.mean():.4f}, worst {noise.max():.4f} nats a token; "
        f"a row's sum {np.abs(sums).mean():.4f}; between two orders of the batch: mean {repeat.mean():.4f}"
    )
    assert noise.mean() < BFLOAT16
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
def test_two_gpus_give_the_numbers_of_one(model, sequences, expected):
    with engine(model, tensor_parallel_size=2) as vllm:
        found = vllm.logprobs(sequences)
    assert gaps(found, expected).max() < OTHER_ENGINE
