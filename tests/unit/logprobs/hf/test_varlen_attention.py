"""A batch's attention in one call: the kernel needs a GPU, so what it is said to do is done here in plain torch.

tests/gpu/test_packed.py runs the kernel itself.
"""

import numpy as np
import pytest
import torch

from davir_ray.logprobs.hf import varlen_attention
from davir_ray.logprobs.hf.batching import Block
from davir_ray.logprobs.hf.engine import TransformersEngine
from davir_ray.logprobs.hf.model import PACKABLE
from tests.unit.logprobs.hf.random_models import mixed_call, one_row_at_a_time, plain, save

CPU = torch.device("cpu")


def of_segments(query, key, value, q_ends, k_ends, q_longest, k_longest, *, ends_together, scale=None):
    """Return causal attention within each segment, whose queries are the last of its keys or the first."""
    assert (q_longest, k_longest) == (int(q_ends.diff().max()), int(k_ends.diff().max()))
    found = []
    for q_span, k_span in zip(q_ends.unfold(0, 2, 1).tolist(), k_ends.unfold(0, 2, 1).tolist(), strict=True):
        one, keys, values = query[slice(*q_span)], key[slice(*k_span)], value[slice(*k_span)]
        groups = one.shape[1] // keys.shape[1]
        keys, values = (part.repeat_interleave(groups, dim=1) for part in (keys, values))
        logits = torch.einsum("qhd,khd->hqk", one, keys) * (scale or one.shape[-1] ** -0.5)
        before = len(keys) - len(one) if ends_together else 0
        seen = torch.ones(len(one), len(keys)).tril(before).bool()
        weights = logits.masked_fill(~seen, float("-inf")).softmax(-1)
        found.append(torch.einsum("hqk,khd->qhd", weights, values))
    return torch.cat(found)


def kernel(*tensors, window_size, enable_gqa, scale=None):
    """Do what torch documents of its kernel."""
    assert window_size == (-1, 0)
    assert enable_gqa == (tensors[0].shape[1] != tensors[1].shape[1])
    return of_segments(*tensors, ends_together=True, scale=scale)


def other_kernel(*tensors, window_size, enable_gqa):
    """Let the first query see the first key alone, as some versions of FlashAttention do."""
    return of_segments(*tensors, ends_together=False)


@pytest.mark.parametrize("model_type", sorted(PACKABLE))
def test_one_call_a_layer_equals_one_row_at_a_time(model_type, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(varlen_attention, "takes", lambda *_: True)
    monkeypatch.setattr(varlen_attention, "varlen_attn", lambda *a, **b: calls.append(a) or kernel(*a, **b))
    folder, call = save(tmp_path, model_type), mixed_call()
    found = TransformersEngine(folder, batch_tokens=150).logprobs(call)
    assert any(len(one[1]) > len(one[0]) for one in calls), "no segment saw tokens before it"
    expected = one_row_at_a_time(plain(folder, attn_implementation="eager"), call)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("key_heads", [4, 1])
def test_a_kernel_is_used_that_does_what_it_should(key_heads, monkeypatch):
    monkeypatch.setattr(varlen_attention, "varlen_attn", kernel)
    assert varlen_attention.proven.__wrapped__(CPU, torch.float32, 4, key_heads, 16)


def test_a_kernel_that_aligns_queries_with_the_first_keys_is_not_used(monkeypatch):
    monkeypatch.setattr(varlen_attention, "varlen_attn", other_kernel)
    assert not varlen_attention.proven.__wrapped__(CPU, torch.float32, 4, 4, 16)


def test_a_kernel_that_is_not_there_is_not_used_and_that_is_told(capfd):
    assert not varlen_attention.proven.__wrapped__(CPU, torch.bfloat16, 4, 4, 16)
    assert "variable-length kernel cannot be used here" in capfd.readouterr().err


def test_memory_that_runs_out_says_nothing_about_the_kernel(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(varlen_attention, "varlen_attn", full)
    with pytest.raises(torch.OutOfMemoryError):
        varlen_attention.proven.__wrapped__(CPU, torch.float32, 4, 4, 16)


def test_a_batch_that_would_copy_much_goes_block_by_block():
    def fits(header, rows, own):
        return varlen_attention.Spans([Block(0, rows, own, ())], header).fits

    assert fits(0, 1000, 16)
    assert fits(40, 1000, 16)
    assert not fits(4000, 1000, 16)


def test_where_gradients_may_be_taken_blocks_are_attended_to_one_by_one(monkeypatch):
    class OnGpu(torch.Tensor):
        is_cuda = True

    states = torch.zeros(3, 4, 16, dtype=torch.bfloat16).as_subclass(OnGpu)
    monkeypatch.setattr(varlen_attention, "proven", lambda *_: True)
    assert not varlen_attention.takes(states, states)
    with torch.no_grad():
        assert varlen_attention.takes(states, states)


def test_on_a_cpu_blocks_are_attended_to_one_by_one():
    assert not varlen_attention.takes(torch.zeros(3, 4, 16, dtype=torch.bfloat16), torch.zeros(3, 4, 16))
