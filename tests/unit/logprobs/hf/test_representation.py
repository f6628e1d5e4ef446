"""The kind `representation` against hidden states of plain transformers, one row at a time, float32."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from davir_ray.config import EngineConfig
from davir_ray.errors import EngineError
from davir_ray.logprobs.choice import Choice
from davir_ray.logprobs.hf.engine import TransformersEngine
from davir_ray.logprobs.kinds import LOSS
from davir_ray.logprobs.representation import REPRESENTATION
from davir_ray.models.resolve import ResolvedModel
from tests.unit.logprobs.hf.random_models import mixed_call, one_row_at_a_time, plain, save

NEAR = 2e-5


def vectors_of(model, sequences):
    """Compute the vectors from what goes into the head, in float64 from there on."""
    seen = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for sequence in sequences:
        with torch.no_grad():
            model(input_ids=torch.from_numpy(sequence.ids.astype(np.int64))[None], use_cache=False)
    hook.remove()
    weights = [np.arange(1, len(one.ids) + 1) for one in sequences]
    return [
        np.average(one[0].double().numpy(), axis=0, weights=w) for one, w in zip(seen, weights, strict=True)
    ]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save(tmp_path_factory.mktemp("llama"), "llama")


def open_(kind, folder, dtype="float32"):
    choice = Choice("transformers", dtype, "cpu", "for the test")
    return kind.open(choice, EngineConfig(), ResolvedModel(folder, None, "m", ""), 256)


@pytest.mark.parametrize(("model_type", "packs"), [("llama", True), ("gemma2", False)])
def test_vectors_are_means_over_all_positions_of_what_the_head_reads(model_type, packs, tmp_path):
    folder, call = save(tmp_path, model_type), mixed_call()
    engine = TransformersEngine(folder, batch_tokens=150)
    assert (engine._packed_limit > 0) == packs
    model, found = plain(folder, attn_implementation="eager"), engine.represented(call)
    np.testing.assert_allclose([one.vector for one in found], vectors_of(model, call), rtol=NEAR, atol=NEAR)
    for one, expected in zip(found, one_row_at_a_time(model, call), strict=True):
        np.testing.assert_allclose(one.logprobs, expected, rtol=NEAR, atol=NEAR)


@pytest.mark.parametrize("batch_tokens", [1, 64, 10_000])
def test_neither_order_nor_batch_size_nor_a_head_of_its_own_matters(llama, batch_tokens):
    call = mixed_call()
    engine = TransformersEngine(llama, batch_tokens=batch_tokens)
    expected = [one.vector for one in TransformersEngine(llama, batch_tokens=300).represented(call)]
    np.testing.assert_allclose(
        [one.vector for one in engine.represented(call[::-1])][::-1], expected, rtol=NEAR, atol=NEAR
    )
    engine._head, engine._packed_limit = None, 0
    np.testing.assert_allclose(
        [one.vector for one in engine.represented(call)], expected, rtol=NEAR, atol=NEAR
    )


def test_its_losses_are_those_of_the_kind_loss(llama):
    call = mixed_call()
    found, losses = (open_(kind, llama).measure(call) for kind in (REPRESENTATION, LOSS))
    assert found.schema == REPRESENTATION.columns.remove(0)
    assert found["num_tokens"] == losses["num_tokens"]
    np.testing.assert_allclose(found["loss"].to_numpy(), losses["loss"].to_numpy(), rtol=1e-5)
    assert REPRESENTATION.implies == ("loss",)


def test_another_batch_does_not_contradict_and_another_model_does(llama, tmp_path):
    call = mixed_call()
    exact = open_(REPRESENTATION, llama).measure(call)
    backwards = open_(REPRESENTATION, llama).measure(call[::-1]).take(np.arange(len(call))[::-1])
    assert not REPRESENTATION.contradicts(exact, backwards).any()
    other = open_(REPRESENTATION, save(tmp_path, "llama", seed=5)).measure(call)
    assert REPRESENTATION.contradicts(exact, other).all()


def test_what_no_measurement_has_is_a_flaw():
    vectors = pa.array([[1.0, 2.0], [1.0, np.nan], [], [0.5, 1.0]], pa.list_(pa.float32()))
    measured = pa.table({"loss": [1.0, 1.0, 1.0, -1.0], "num_tokens": [1, 1, 1, 1], "vector": vectors})
    flaws = REPRESENTATION.flaws(measured)
    assert flaws == {1: "a vector with values that are none", 2: "no vector", 3: "a loss of -1.0"}


@pytest.mark.parametrize("engine", ["vllm", "hash", "my_engines:Own"])
def test_other_engines_are_refused_with_what_to_set(engine):
    with pytest.raises(EngineError, match=f"{engine} gives no hidden states, .* set it to transformers"):
        REPRESENTATION.check(Choice(engine, "float32", "cpu", "made up"))
