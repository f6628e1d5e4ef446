"""A number drawn for each example: the baseline that every score has to beat. Use three seeds.

    random(x, y) = uniform in [0, 1), from a hash of the example's id and `score.seed`

It depends on nothing else, so the same rows are drawn however the corpus is ordered, cut or grown.
"""

import numpy as np
from numpy.typing import NDArray

from davir_ray.config import ScoreConfig
from davir_ray.ids import GOLDEN, mixed
from davir_ray.scores.score import Floats, Measured, Score


def random_draw(measured: Measured, config: ScoreConfig) -> Floats:
    """Return draws from [0, 1), in steps of 2**-53 [N]."""
    halves = np.ascontiguousarray(measured.example_id, dtype="S16").view("<u8").reshape(-1, 2)
    state = _step(np.array([config.seed % 2**64], dtype=np.uint64))
    state = _step(_step(state ^ halves[:, 0]) ^ halves[:, 1])
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _step(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Step splitmix64 once."""
    return mixed(state + GOLDEN)


RANDOM = Score(
    name="random",
    formula="uniform in [0, 1) by example id and seed",
    needs=(),
    paper="none (baseline)",
    compute=random_draw,
    settings=("seed",),
)
