"""A number drawn for each example: the baseline that every score has to beat. Use three seeds.

    random(x, y) = uniform in [0, 1), from a hash of the example's id and `score.seed`

It depends on nothing else, so the same rows are drawn however the corpus is ordered, cut or grown.
"""

from davir_ray.config import ScoreConfig
from davir_ray.ids import uniform_draw
from davir_ray.scores.score import Floats, Measured, Score


def random_draw(measured: Measured, config: ScoreConfig) -> Floats:
    """Return draws from [0, 1) [N]."""
    return uniform_draw(measured.example_id, config.seed)


RANDOM = Score(
    name="random",
    formula="uniform in [0, 1) by example id and seed",
    needs=(),
    paper="none (baseline)",
    compute=random_draw,
    settings=("seed",),
)
