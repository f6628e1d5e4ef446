"""The transformers engine on a GPU: exact in float32; in bfloat16 attention is one call a layer, as exact as many."""

import numpy as np
import pytest

from davir_ray.coreset.cut_noise import ROUNDING
from davir_ray.logprobs.engine import TokenSequence
from tests.gpu.real_model import MODEL, gaps

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

FLOAT32 = 1e-3
"""Nats a token between a GPU and a CPU in float32, on a model of 30 layers."""


def measured(sequences: list[TokenSequence], dtype: str) -> list[np.ndarray]:
    from davir_ray.logprobs.hf.engine import TransformersEngine

    ours = TransformersEngine(MODEL, dtype=dtype, device="cuda")
    try:
        return ours.logprobs(sequences)
    finally:
        ours.close()


def test_float32_on_the_gpu_is_float32_on_the_cpu(sequences, expected):
    found = gaps(measured(sequences, "float32"), expected)
    print(f"float32 on the GPU to the CPU: mean {found.mean():.2e}, worst {found.max():.2e} nats a token")
    assert found.max() < FLOAT32


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_one_call_of_attention_is_as_far_from_the_truth_as_many(sequences, expected, dtype, monkeypatch):
    from davir_ray.logprobs.hf import varlen_attention

    asked = []
    takes = varlen_attention.takes
    monkeypatch.setattr(varlen_attention, "takes", lambda *states: asked.append(takes(*states)) or asked[-1])
    at_once = measured(sequences, dtype)
    assert set(asked) == {True}, "the kernel was not taken"
    monkeypatch.setattr(varlen_attention, "takes", lambda *_: False)
    by_block = measured(sequences, dtype)
    errors = [np.sqrt(np.mean(gaps(one, expected) ** 2)) for one in (at_once, by_block)]
    print(f"{dtype}: off by {errors[0]:.4f} nats a token (RMS) in one call, {errors[1]:.4f} block by block")
    assert errors[0] < 1.2 * errors[1]
    assert errors[0] < 1.5 * ROUNDING[dtype]


def test_a_call_repeats_bit_for_bit(sequences):
    for one, other in zip(measured(sequences, "bfloat16"), measured(sequences, "bfloat16"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_gradients_of_packed_rows_on_the_gpu_are_those_of_the_cpu(sequences):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from davir_ray.influence.adapted import AdaptedModel
    from davir_ray.influence.gradients import mean_loss_weights, visit_gradients

    def gradients(device: str) -> dict[str, np.ndarray]:
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
        adapted = get_peft_model(
            base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        )
        found = {}
        rows = sequences[:4]
        visit_gradients(
            AdaptedModel(adapted.to(device)),
            rows,
            mean_loss_weights(rows),
            lambda name, some: found.update({name: some.detach().double().cpu().numpy()}),
        )
        return found

    here, there = gradients("cpu"), gradients("cuda")
    assert here.keys() == there.keys()
    for name, one in here.items():
        cosine = (one * there[name]).sum() / np.linalg.norm(one) / np.linalg.norm(there[name])
        assert cosine > 1 - 1e-5, name
