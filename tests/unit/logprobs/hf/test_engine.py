"""The engine against plain transformers, one row at a time, float32, on tiny random models."""

import numpy as np
import pytest

from davir_ray.errors import ModelError
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.hf.engine import TransformersEngine
from davir_ray.logprobs.hf.model import PACKABLE
from tests.unit.logprobs.hf.random_models import (
    BOTH,
    VOCABULARY,
    assert_true,
    mixed_call,
    one_row_at_a_time,
    plain,
    save,
    save_adapter,
    sequence_of,
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save(tmp_path_factory.mktemp("llama"), "llama", tie_word_embeddings=True)


def _expected(folder, sequences):
    return one_row_at_a_time(plain(folder), sequences)


def _assert_equal(found, expected, tolerance=2e-5):
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=f"sequence {i}")


@pytest.mark.parametrize("model_type", sorted(PACKABLE))
def test_packed_architectures_equal_one_row_at_a_time(model_type, tmp_path):
    folder, call = save(tmp_path, model_type), mixed_call()
    engine = TransformersEngine(folder, batch_tokens=150)
    assert engine._packed_limit > 0
    model = plain(folder, attn_implementation="eager")
    expected = one_row_at_a_time(model, call)
    assert np.std(np.concatenate(expected)) > 0.05
    _assert_equal(engine.logprobs(call), expected)
    assert_true(engine.token_values(call, BOTH), model, call)


@pytest.mark.parametrize("model_type", ["gemma2", "qwen3_moe", "mamba", "opt"])
def test_other_architectures_equal_one_row_at_a_time(model_type, tmp_path):
    folder, call = save(tmp_path, model_type), mixed_call()
    engine = TransformersEngine(folder, batch_tokens=150)
    assert engine._packed_limit == 0
    options = {} if model_type == "mamba" else {"attn_implementation": "eager"}
    model = plain(folder, **options)
    _assert_equal(engine.logprobs(call), one_row_at_a_time(model, call))
    assert_true(engine.token_values(call, BOTH), model, call)


def test_rotary_embeddings_that_depend_on_the_batch_are_not_packed(tmp_path):
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}
    folder = save(tmp_path, "llama", rope_parameters=rope, max_position_embeddings=64)
    engine, call = TransformersEngine(folder), [s for s in mixed_call() if len(s.ids) <= 64]
    assert engine._packed_limit == 0
    _assert_equal(engine.logprobs(call), _expected(folder, call))


def test_an_untied_head_gives_its_own_logits(tmp_path):
    folder, call = save(tmp_path, "llama", tie_word_embeddings=False), mixed_call()
    _assert_equal(TransformersEngine(folder).logprobs(call), _expected(folder, call))


@pytest.mark.parametrize("batch_tokens", [1, 64, 10_000])
def test_order_and_batch_size_do_not_matter(llama, batch_tokens):
    call = mixed_call()
    expected = _expected(llama, call)
    engine = TransformersEngine(llama, batch_tokens=batch_tokens)
    _assert_equal(engine.logprobs(call[::-1])[::-1], expected)
    for sequence, values in zip(call, expected, strict=True):
        _assert_equal(engine.logprobs([sequence]), [values])


def test_a_call_repeats_bit_for_bit_whatever_was_asked_before(llama):
    engine, call = TransformersEngine(llama), mixed_call()
    first = engine.logprobs(call)
    engine.logprobs(mixed_call(seed=1))
    for again in (engine.logprobs(call), engine.logprobs(call), TransformersEngine(llama).logprobs(call)):
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)


def test_nothing_is_asked_and_nothing_is_answered(llama):
    assert TransformersEngine(llama).logprobs([]) == []


def test_a_vocabulary_of_many_slices_sums_to_one(tmp_path):
    folder = save(tmp_path, "llama", vocab_size=5000)
    rest = [sequence_of(([5, 6, 7], False), ([token], True)) for token in range(5000)]
    logprobs = np.concatenate(TransformersEngine(folder).logprobs(rest))
    assert np.exp(logprobs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)


def test_an_adapter_gives_what_peft_gives_unmerged(llama, tmp_path):
    call = mixed_call()
    folder, adapted = save_adapter(tmp_path, llama)
    expected = one_row_at_a_time(adapted, call)
    assert np.abs(np.concatenate(expected) - np.concatenate(_expected(llama, call))).max() > 0.1
    _assert_equal(TransformersEngine(llama, adapter_path=folder).logprobs(call), expected, 1e-4)


def test_bfloat16_stays_near_float32_with_and_without_an_adapter(llama, tmp_path):
    call = mixed_call()
    folder, adapted = save_adapter(tmp_path, llama)
    for path, expected in ((None, _expected(llama, call)), (folder, one_row_at_a_time(adapted, call))):
        found = TransformersEngine(llama, adapter_path=path, dtype="bfloat16").logprobs(call)
        error = np.concatenate(found) - np.concatenate(expected)
        assert 0 < np.abs(error).mean() < 0.15


@pytest.mark.parametrize(
    ("ids", "scored", "message"),
    [
        ([1, VOCABULARY], [False, True], "token ids must lie in 0 to 198"),
        ([-1, 1], [False, True], "token ids must lie in 0 to 198"),
        ([1, 2], [True, True], "the first cannot be one"),
        ([1, 2], [False, False], "needs a scored token"),
        ([1] * 257, [False] + [True] * 256, "257 tokens, but the model takes 256"),
    ],
)
def test_a_sequence_that_the_model_cannot_take_is_named(llama, ids, scored, message):
    good = sequence_of(([1], False), ([2], True))
    bad = TokenSequence(np.array(ids, dtype=np.int32), np.array(scored))
    with pytest.raises(ValueError, match=f"sequence 1: .*{message}"):
        TransformersEngine(llama).logprobs([good, bad])


def test_a_folder_without_a_model_or_an_adapter_is_an_error_that_names_it(llama, tmp_path):
    with pytest.raises(ModelError, match=str(tmp_path)):
        TransformersEngine(str(tmp_path))
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors"):
        TransformersEngine(llama, adapter_path=str(tmp_path))
