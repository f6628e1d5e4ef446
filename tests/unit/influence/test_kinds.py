"""The kinds rose, less and gradient_cosine: from a folder to a table, and what they tell of tables."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from davir_ray.config import EngineConfig
from davir_ray.errors import EngineError, ModelError
from davir_ray.influence.kinds import GRADIENT_COSINE, LESS, ROSE, InfluenceMeasurer
from davir_ray.logprobs.choice import Choice
from davir_ray.models.adapter import MOMENTS
from tests.tiny_adapted import saved_checkpoint, sequences, tiny_target

CHOICE = Choice("transformers", "float32", "cpu", "asked")


@pytest.fixture
def model(tmp_path):
    return saved_checkpoint(tmp_path)


def table(*cosines, norms=None):
    norms = norms or [1.0] * len(cosines)
    return pa.table(
        {"norm": pa.array(norms, pa.float64()), "cosines": pa.array(list(cosines), pa.list_(pa.float64()))}
    )


@pytest.mark.parametrize("kind", [ROSE, LESS, GRADIENT_COSINE], ids=lambda kind: kind.name)
def test_a_kind_measures_the_same_in_any_order(kind, model):
    aimed = kind.aimed(tiny_target())
    ground = aimed.ground_of(CHOICE, EngineConfig(), model, 64)
    measurer = aimed.grounded(ground).open(CHOICE, EngineConfig(), model, 64)
    rows = sequences(7, seed=3)
    found, turned = measurer.measure(rows), measurer.measure(rows[::-1])
    measurer.close()
    assert found.schema.names == [name for name in kind.columns.names if name != "sequence_id"]
    assert kind.flaws(found) == {}
    assert set(pc.list_value_length(found["cosines"]).to_pylist()) == {2}
    backwards = turned.take(list(range(6, -1, -1)))
    np.testing.assert_allclose(found["cosines"].to_pylist(), backwards["cosines"].to_pylist(), atol=1e-5)
    assert not kind.contradicts(found, backwards).any()


def test_the_directions_of_a_target_have_the_same_bytes_every_time(model):
    aimed = ROSE.aimed(tiny_target())
    one, other = (aimed.ground_of(CHOICE, EngineConfig(), model, 64) for _ in range(2))
    assert one == other


def test_steps_need_moments_and_plain_gradients_need_none(model):
    Path(model.adapter_path, MOMENTS).unlink()
    for kind, fails in ((GRADIENT_COSINE, False), (LESS, True)):
        aimed = kind.aimed(tiny_target())
        grounded = aimed.grounded(aimed.ground_of(CHOICE, EngineConfig(), model, 64))
        if fails:
            with pytest.raises(ModelError, match="has no moments"):
                grounded.open(CHOICE, EngineConfig(), model, 64)
        else:
            grounded.open(CHOICE, EngineConfig(), model, 64).close()


def test_a_target_names_what_is_measured():
    assert LESS.fingerprint() == ""
    one, other = (LESS.aimed(tiny_target(seed)).fingerprint() for seed in (1, 2))
    assert one != other
    assert one == LESS.aimed(tiny_target(1)).fingerprint()


def test_only_transformers_takes_gradients():
    LESS.check(CHOICE)
    with pytest.raises(EngineError, match="set it to transformers"):
        LESS.check(Choice("vllm", "bfloat16", "cuda", "asked"))


def test_flaws_are_told_by_row():
    found = LESS.flaws(
        table(
            [0.1, -1.0001],
            [0.1, 1.5],
            [],
            [float("nan"), 0.0],
            [0.5, 0.5],
            [],
            norms=[1.0, 1.0, 1.0, 1.0, float("inf"), 0.0],
        )
    )
    assert sorted(found) == [1, 2, 3, 4]
    assert found[4] == "a step of length inf"


def test_a_row_whose_gradient_is_0_has_no_cosines_and_no_flaw():
    class Still:
        """An aligner of two rows, the second without a gradient."""

        def align(self, sequences):
            return torch.tensor([[0.1, 0.2], [float("nan")] * 2]), torch.tensor([1.0, 0.0])

    found = InfluenceMeasurer(Still()).measure(["one", "other"])
    assert found["cosines"].to_pylist() == [pytest.approx([0.1, 0.2]), []]
    assert GRADIENT_COSINE.flaws(found) == {}


def test_norms_contradict_each_other_where_cosines_are_all_small():
    one = table([0.001, 0.002], [0.003, 0.0], norms=[1.0, 1.0])
    assert LESS.contradicts(one, table([0.0, 0.001], [0.0, 0.001], norms=[1.05, 2.0])).tolist() == [
        False,
        True,
    ]


def test_measurements_contradict_each_other_where_any_cosine_is_apart():
    one, other = table([0.1, 0.2], [0.1, 0.2]), table([0.11, 0.2], [0.1, 0.4])
    assert LESS.contradicts(one, other).tolist() == [False, True]
    assert LESS.contradicts(table([0.1], [0.2]), table([0.1], [0.2, 0.3])).tolist() == [False, True]
