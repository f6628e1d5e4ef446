"""Vectors of a target's rows are looked at before they are kept."""

from types import SimpleNamespace

import pyarrow as pa
import pytest

from davir_ray.errors import EngineError
from davir_ray.measure.ray_target import _check_vectors

UNDER = SimpleNamespace(model="base")


@pytest.mark.parametrize("vector", [[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_a_row_whose_vector_points_nowhere_is_named(vector):
    vectors = pa.array([[1.0, 0.0], [0.5, 0.5], [3.0, 0.0], vector], pa.list_(pa.float32()))
    _check_vectors(UNDER, ["se", "se", "hh"], vectors[:3])
    with pytest.raises(
        EngineError, match=r"^target: row 1 of subtask hh, counted from 0: its vector under base"
    ):
        _check_vectors(UNDER, ["se", "se", "hh", "hh"], vectors)
