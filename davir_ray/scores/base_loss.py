"""The base's loss on the response, in nats a token: what the base finds hard. A baseline.

base_loss(x, y) = L_base(y|x) / tokens(y)
"""

from davir_ray.config import ScoreConfig
from davir_ray.scores.guards import mean_loss
from davir_ray.scores.score import BASE, Floats, Measured, Score


def base_loss(measured: Measured, config: ScoreConfig) -> Floats:
    """Return mean losses under the base [N]."""
    return mean_loss(measured, BASE)


BASE_LOSS = Score(
    name="base_loss",
    formula="L_base / tokens",
    needs=(BASE,),
    paper="none (baseline)",
    compute=base_loss,
)
