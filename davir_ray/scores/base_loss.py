"""The base's loss on the response, in nats a token: what the base finds hard. A baseline.

base_loss(x, y) = L_base(y|x) / tokens(y)
"""

from davir_ray.config import ScoreConfig
from davir_ray.schema import View
from davir_ray.scores.guards import mean_loss
from davir_ray.scores.score import Floats, Measured, Score


def base_loss(measured: Measured, config: ScoreConfig) -> Floats:
    """Return mean losses under the base [N]."""
    return mean_loss(measured, ("base", View.RESPONSE))


BASE_LOSS = Score(
    name="base_loss",
    formula="L_base / tokens",
    needs=(("base", View.RESPONSE),),
    paper="none (baseline)",
    compute=base_loss,
)
