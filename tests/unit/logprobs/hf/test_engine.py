"""The engine against plain transformers, one row at a time, float32, on tiny random models."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from davir_ray.errors import ModelError
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.hf.engine import TransformersEngine
from davir_ray.logprobs.hf.model import PACKABLE

VOCABULARY = 199
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,  # large, so that a wrong mask or position shows
    "init_std": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXTRA = {
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 3.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0},
    "gemma2": {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0, "sliding_window": 24},
    "gemma3_text": {"final_logit_softcapping": 3.0, "sliding_window": 64},
    "mistral": {"sliding_window": 64},
}


def save(folder, model_type, seed=0, **changes):
    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **{**SMALL, **EXTRA.get(model_type, {}), **changes})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save(tmp_path_factory.mktemp("llama"), "llama", tie_word_embeddings=True)


def _sequence(*parts):
    """Build a sequence from (ids, scored) parts."""
    ids = np.concatenate([np.asarray(ids) for ids, _ in parts]).astype(np.int32)
    return TokenSequence(ids, np.concatenate([np.full(len(ids), scored) for ids, scored in parts]))


def mixed_call(seed=0):
    """Make a call with everything in it: a template header, pairs, repeats, prefixes of others, odd masks."""
    rng = np.random.default_rng(seed)

    def draw(count):
        return rng.integers(3, VOCABULARY, count)

    header, prompt, other = draw(20), draw(18), draw(33)
    call = [
        _sequence((header, False), (draw(n), False), (draw(m), True)) for n, m in rng.integers(1, 25, (12, 2))
    ]
    call += [_sequence((header, False), (prompt, False), (draw(n), True)) for n in (5, 5, 9)]
    call += [_sequence((other, False), (draw(n), True)) for n in (1, 1, 30)]
    turn = draw(20)
    call += [_sequence((other, False), (turn, True), (draw(4), False), (draw(n), True)) for n in (3, 6)]
    call += [_sequence((other, False), (turn, True)), call[0], call[0]]
    call += [_sequence((header[:1], False), (header[1:], True)), _sequence((header, False), (draw(1), True))]
    call += [_sequence((draw(1), False), (draw(1), True)), _sequence((draw(1), False), (draw(99), True))]
    odd = _sequence((header, False), (draw(30), True), (draw(2), False))
    odd.scored[25:40:2] = False
    return [*call, odd]


def _one_row_at_a_time(model, sequences):
    """Compute the same with plain transformers: no padding, no batch, float32."""
    rows = []
    for sequence in sequences:
        ids = torch.from_numpy(sequence.ids.astype(np.int64))
        with torch.no_grad():
            logits = model(input_ids=ids[None], use_cache=False).logits[0].float()
        every = torch.log_softmax(logits[:-1], -1).gather(1, ids[1:, None])[:, 0].numpy()
        rows.append(every[sequence.scored[1:]])
    return rows


def _expected(folder, sequences, **options):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
    return _one_row_at_a_time(model, sequences)


def _assert_equal(found, expected, tolerance=2e-5):
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=f"sequence {i}")


@pytest.mark.parametrize("model_type", sorted(PACKABLE))
def test_packed_architectures_equal_one_row_at_a_time(model_type, tmp_path):
    folder, call = save(tmp_path, model_type), mixed_call()
    engine = TransformersEngine(folder, batch_tokens=150)
    assert engine._packed_limit > 0
    expected = _expected(folder, call, attn_implementation="eager")
    assert np.std(np.concatenate(expected)) > 0.05
    _assert_equal(engine.logprobs(call), expected)


@pytest.mark.parametrize("model_type", ["gemma2", "qwen3_moe", "mamba", "opt"])
def test_other_architectures_equal_one_row_at_a_time(model_type, tmp_path):
    folder, call = save(tmp_path, model_type), mixed_call()
    engine = TransformersEngine(folder, batch_tokens=150)
    assert engine._packed_limit == 0
    options = {} if model_type == "mamba" else {"attn_implementation": "eager"}
    _assert_equal(engine.logprobs(call), _expected(folder, call, **options))


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
    rest = [_sequence(([5, 6, 7], False), ([token], True)) for token in range(5000)]
    logprobs = np.concatenate(TransformersEngine(folder).logprobs(rest))
    assert np.exp(logprobs.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)


def save_adapter(folder, llama):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(llama)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(folder)
    return str(folder), adapted.eval()


def test_an_adapter_gives_what_peft_gives_unmerged(llama, tmp_path):
    call = mixed_call()
    folder, adapted = save_adapter(tmp_path, llama)
    expected = _one_row_at_a_time(adapted, call)
    assert np.abs(np.concatenate(expected) - np.concatenate(_expected(llama, call))).max() > 0.1
    _assert_equal(TransformersEngine(llama, adapter_path=folder).logprobs(call), expected, 1e-4)


def test_bfloat16_stays_near_float32_with_and_without_an_adapter(llama, tmp_path):
    call = mixed_call()
    folder, adapted = save_adapter(tmp_path, llama)
    for path, expected in ((None, _expected(llama, call)), (folder, _one_row_at_a_time(adapted, call))):
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
    good = _sequence(([1], False), ([2], True))
    bad = TokenSequence(np.array(ids, dtype=np.int32), np.array(scored))
    with pytest.raises(ValueError, match=f"sequence 1: .*{message}"):
        TransformersEngine(llama).logprobs([good, bad])


def test_a_folder_without_a_model_or_an_adapter_is_an_error_that_names_it(llama, tmp_path):
    with pytest.raises(ModelError, match=str(tmp_path)):
        TransformersEngine(str(tmp_path))
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors"):
        TransformersEngine(llama, adapter_path=str(tmp_path))
