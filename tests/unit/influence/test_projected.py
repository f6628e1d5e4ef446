"""The kind projected_step: from a folder to a store, and from there to the cosines with any target."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from davir_ray.config import EngineConfig
from davir_ray.errors import EngineError
from davir_ray.influence import gradients
from davir_ray.influence.adapted import AdaptedModel
from davir_ray.influence.moments import read_moments
from davir_ray.influence.projected import COSINES, PROJECTED_STEP, Alignment
from davir_ray.influence.projector import Projector
from davir_ray.influence.target import Subtask, Target, TargetRow
from davir_ray.logprobs.choice import Choice
from davir_ray.measure.kind import kind_identity
from davir_ray.store.measurements import MeasurementStore
from tests.measured import keys
from tests.tiny_adapted import (
    by_hand,
    cosine,
    dpo_loss,
    gradient_by_autograd,
    saved_checkpoint,
    sequences,
    step_by_hand,
    tiny_adapted,
    tiny_target,
)

CHOICE = Choice("transformers", "float32", "cpu", "asked")
ROWS = sequences(12, seed=3)
NAMES = [chr(ord("a") + index) for index in range(len(ROWS))]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved_checkpoint(tmp_path_factory.mktemp("projected"))


@pytest.fixture(scope="module")
def stored(model, tmp_path_factory):
    """What a store gives back of the rows."""
    measurer = PROJECTED_STEP.open(CHOICE, EngineConfig(), model, 64)
    measured = measurer.measure(ROWS)
    measurer.close()
    store = MeasurementStore(str(tmp_path_factory.mktemp("store")), PROJECTED_STEP)
    store.write(keys(*NAMES), measured)
    return store.read(part.uri for part in store.parts())


@pytest.fixture(scope="module")
def steps(model):
    """The steps on the rows by autograd in float64, one row at a time."""
    adapted, moments = tiny_adapted(torch.float32).double(), read_moments(model.adapter_path)
    return [step_by_hand(by_hand(adapted, row), moments) for row in ROWS]


def gradient_of(row: TargetRow) -> torch.Tensor:
    adapted = tiny_adapted(torch.float32).double()
    if row.rejected is None:
        return by_hand(adapted, row.chosen)
    return gradient_by_autograd(adapted, lambda it: dpo_loss(it, row.chosen, row.rejected, 0.1))


RESPONSES = Target(
    tuple(
        Subtask(name, tuple(TargetRow(ROWS[at], None) for at in some))
        for name, some in (("c", (0, 1)), ("d", (2,)))
    )
)


@pytest.mark.parametrize("target", [tiny_target(), RESPONSES], ids=["pairs", "responses"])
def test_stored_steps_lie_to_any_target_as_exact_ones_but_for_the_error_of_projecting(
    model, stored, steps, target
):
    """The standard deviation of a cosine of projections by signs is at most 1 / sqrt(D)."""
    vectors = PROJECTED_STEP.of_target(CHOICE, model, target)
    assert {name: len(some) for name, some in vectors.items()} == {
        one.name: len(one.rows) for one in target.subtasks
    }
    table = Alignment.with_target(vectors)(stored)
    assert table.column_names == ["sequence_id", *COSINES.names]
    found = np.array(table["cosines"].to_pylist())
    taken = [[gradient_of(row) for row in subtask.rows] for subtask in target.subtasks]
    expected = np.array([[np.mean([cosine(step, one) for one in some]) for some in taken] for step in steps])
    errors = (found - expected) * PROJECTED_STEP.dimensions**0.5
    assert np.abs(errors).max() < 4
    assert 0.05 < errors.std() < 1.3
    assert (
        np.ptp(expected, axis=0) * PROJECTED_STEP.dimensions**0.5
    ).min() > 10  # so that the bound says something


def test_norms_are_those_of_the_steps_themselves(stored, steps):
    expected = [float(step.norm()) for step in steps]
    np.testing.assert_allclose(stored["norm"].to_numpy(), expected, rtol=1e-5)
    lengths = np.linalg.norm(np.array(stored["vector"].to_pylist(), np.float64), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=5 / PROJECTED_STEP.dimensions**0.5)


def test_what_is_measured_names_the_signs_and_no_target():
    assert kind_identity("projected_step", PROJECTED_STEP) == "projected_step 8192 dimensions, seed 0"


@pytest.mark.parametrize("tokens", [1, 40, 10_000])
def test_batches_and_order_do_not_matter(monkeypatch, model, tokens):
    adapted, moments = AdaptedModel(tiny_adapted(torch.float32)), read_moments(model.adapter_path)
    expected, _ = Projector(adapted, moments, 512).project(ROWS)
    monkeypatch.setitem(gradients.BATCH_TOKENS, "cpu", tokens)
    order = np.random.default_rng(0).permutation(len(ROWS))
    found, _ = Projector(adapted, moments, 512).project([ROWS[index] for index in order])
    torch.testing.assert_close(found, expected[order], rtol=0, atol=1e-5)


def test_another_seed_projects_by_other_signs(model):
    adapted, moments = AdaptedModel(tiny_adapted(torch.float32)), read_moments(model.adapter_path)
    one, other = (Projector(adapted, moments, 512, seed).project(ROWS[:1])[0][0] for seed in (0, 1))
    assert abs(float(one @ other)) < 5 / 512**0.5


def test_a_pair_without_a_direction_is_named_by_its_subtask(model):
    same = ROWS[0]
    target = Target((Subtask("odd", (TargetRow(same, same),)),))
    with pytest.raises(EngineError, match="subtask odd: the gradient of a row is 0"):
        PROJECTED_STEP.of_target(CHOICE, model, target)


def test_only_transformers_takes_gradients():
    PROJECTED_STEP.check(CHOICE)
    with pytest.raises(EngineError, match="takes no gradients, which projected_step is made of"):
        PROJECTED_STEP.check(Choice("vllm", "bfloat16", "cuda", "asked"))


def table(vectors, norms=None) -> pa.Table:
    norms = norms or [1.0] * len(vectors)
    kept = pa.array([np.asarray(one, np.float16) for one in vectors], pa.list_(pa.float16()))
    return pa.table({"norm": pa.array(norms, pa.float64()), "vector": kept})


def test_flaws_are_told_by_row():
    good = np.full(8192, 8192**-0.5)
    odd = good.copy()
    odd[5] = np.inf
    found = PROJECTED_STEP.flaws(table([good, good[:100], 0 * good, odd, good], [1.0, 1.0, 1.0, 1.0, 0.0]))
    assert found == {
        1: "a projection to 100 dimensions",
        2: "a projection without a direction",
        3: "a projection without a direction",
        4: "a step of length 0.0",
    }


def test_measurements_contradict_each_other_where_they_point_elsewhere():
    kind = replace(PROJECTED_STEP, dimensions=2)
    one, other = table([[1, 0], [1, 0]]), table([[2, 0.2], [1, 1]])
    assert kind.contradicts(one, other).tolist() == [False, True]


def test_no_rows_have_no_cosines():
    nothing = Alignment.with_target({"a": np.ones((2, 8192), np.float32)})(table([]))
    assert nothing["cosines"].to_pylist() == []
