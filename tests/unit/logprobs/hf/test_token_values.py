"""Ranks and entropies against whole rows of logits in float64, one sequence at a time, on tiny random models."""

import numpy as np
import pytest
import torch

from davir_ray import logprobs
from davir_ray.config import EngineConfig
from davir_ray.logprobs.choice import Choice, build_engine
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.hf import token_head
from davir_ray.logprobs.hf.engine import TransformersEngine
from davir_ray.models.resolve import ResolvedModel
from tests.unit.logprobs.hf.random_models import (
    BOTH,
    VOCABULARY,
    assert_true,
    mixed_call,
    plain,
    save,
    save_adapter,
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save(tmp_path_factory.mktemp("llama"), "llama", tie_word_embeddings=True)


def test_packed_and_plain_paths_agree(llama):
    engine, call = TransformersEngine(llama), mixed_call()
    packed = engine.token_values(call, BOTH)
    engine._packed_limit = 0
    with_head = engine.token_values(call, BOTH)
    engine._head = None
    whole = engine.token_values(call, BOTH)
    for found in (packed, with_head, whole):
        assert_true(found, plain(llama), call)
    assert np.mean(ranks(packed) == ranks(with_head)) > 0.99
    assert np.mean(ranks(packed) == ranks(whole)) > 0.99


def ranks(found):
    return np.concatenate([values.rank for values in found])


@pytest.mark.parametrize("bytes_at_once", [1, 4 * VOCABULARY * 7])
def test_a_vocabulary_in_slices_and_rows_in_parts_give_the_same(llama, monkeypatch, bytes_at_once):
    call = mixed_call()
    whole = TransformersEngine(llama).token_values(call, BOTH)
    monkeypatch.setattr(token_head, "MIN_SLICE", 16)
    monkeypatch.setattr(token_head, "CHUNK_BYTES", {"cpu": 1})
    monkeypatch.setattr(token_head, "WHOLE_CHUNK_BYTES", {"cpu": bytes_at_once})
    sliced = TransformersEngine(llama).token_values(call, BOTH)
    assert_true(sliced, plain(llama), call)
    assert np.mean(ranks(whole) == ranks(sliced)) > 0.99


def test_what_is_not_wanted_is_not_there_and_what_is_does_not_change_the_rest(llama):
    engine, call = TransformersEngine(llama), mixed_call()
    logprobs, both = engine.logprobs(call), engine.token_values(call, BOTH)
    for wanted in (frozenset(), {"rank"}, {"entropy"}):
        for one, every, values in zip(
            engine.token_values(call, frozenset(wanted)), both, logprobs, strict=True
        ):
            np.testing.assert_array_equal(one.logprobs, values)
            np.testing.assert_array_equal(one.rank, every.rank if "rank" in wanted else None)
            np.testing.assert_array_equal(one.entropy, every.entropy if "entropy" in wanted else None)


def every_token_after(*prefix):
    ids = np.array([[*prefix, token] for token in range(VOCABULARY)], dtype=np.int32)
    scored = np.arange(len(prefix) + 1) == len(prefix)
    return [TokenSequence(row, scored) for row in ids]


def test_equal_logits_do_not_count_as_larger(tmp_path):
    folder = save(tmp_path, "llama", tie_word_embeddings=False)
    model = plain(folder)
    model.lm_head.weight.data[20:] = 0
    model.save_pretrained(folder)
    found = ranks(TransformersEngine(folder).token_values(every_token_after(5, 6), BOTH))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 6]])).logits[0, -1]
    assert len(set(found[20:].tolist())) == 1
    assert found[20] == 1 + int((logits > 0).sum())
    assert (found[logits < 0] == 100).all()
    assert sorted(found[logits > 0].tolist()) == list(range(1, found[20]))


@pytest.mark.parametrize("tokens_a_slice", [VOCABULARY, 16])
def test_impossible_tokens_leave_entropies_finite(tmp_path, monkeypatch, tokens_a_slice):
    folder = save(tmp_path, "phi")
    model = plain(folder)
    model.lm_head.bias.data[20:] = -torch.inf
    model.save_pretrained(folder)
    monkeypatch.setattr(token_head, "MIN_SLICE", tokens_a_slice)
    monkeypatch.setattr(token_head, "CHUNK_BYTES", {"cpu": 1})
    call = every_token_after(5, 6, 7)[:20]
    found = TransformersEngine(folder).token_values(call, BOTH)
    assert_true(found, model, call)
    (impossible,) = TransformersEngine(folder).token_values([every_token_after(5)[-1]], BOTH)
    assert impossible.logprobs == -np.inf
    assert impossible.rank == 21
    assert np.isfinite(impossible.entropy)


def test_entropies_of_near_certain_and_of_uniform_tokens_lose_nothing():
    certain = torch.full((1, 50_000), -40.0)
    certain[0, 7] = 1000.0
    uniform = torch.full((1, 50_000), 20.0)
    for logits, expected in ((certain, 0.0), (uniform, np.log(50_000))):
        values = token_head.values_of_rows(logits, torch.tensor([7]), BOTH)
        assert values.entropy.item() == pytest.approx(expected, rel=1e-6, abs=1e-7)
        assert values.rank.item() == 1


def test_bfloat16_stays_near_float32(llama):
    call = mixed_call()
    exact = TransformersEngine(llama).token_values(call, BOTH)
    rough = TransformersEngine(llama, dtype="bfloat16").token_values(call, BOTH)
    entropies = [np.concatenate([one.entropy for one in found]) for found in (exact, rough)]
    assert 0 < np.abs(entropies[0] - entropies[1]).mean() < 0.15
    assert np.corrcoef(ranks(exact), ranks(rough))[0, 1] > 0.98


def test_an_adapter_gives_what_peft_gives_unmerged(llama, tmp_path):
    call = mixed_call()
    folder, adapted = save_adapter(tmp_path, llama)
    found = TransformersEngine(llama, adapter_path=folder).token_values(call, BOTH)
    assert_true(found, adapted, call, near=1e-3)
    assert np.mean(ranks(found) != ranks(TransformersEngine(llama).token_values(call, BOTH))) > 0.1


def test_the_documented_engine_by_import_path_sees_the_adapter(llama, tmp_path, monkeypatch):
    example = logprobs.__doc__
    lines = example[example.index("    import numpy") : example.index("and in the recipe")]
    (tmp_path / "my_engines.py").write_text("\n".join(line[4:] for line in lines.splitlines()))
    monkeypatch.syspath_prepend(tmp_path)
    call = mixed_call()
    folder, _ = save_adapter(tmp_path / "adapter", llama)
    choice = Choice("my_engines:OneByOne", "float32", "cpu", "")
    for adapter in (None, folder):
        engine = build_engine(choice, EngineConfig(), ResolvedModel(llama, adapter, "", llama), 256)
        expected = TransformersEngine(llama, adapter_path=adapter).logprobs(call)
        for one, other in zip(engine.logprobs(call), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
        engine.close()
