"""The reference's loss on the response, in nats a token: what fine-tuning left unlearnt. A baseline.

reference_loss(x, y) = L_ref(y|x) / tokens(y)
"""

from davir_ray.config import ScoreConfig
from davir_ray.scores.guards import mean_loss
from davir_ray.scores.score import REFERENCE, Floats, Measured, Score


def reference_loss(measured: Measured, config: ScoreConfig) -> Floats:
    """Return mean losses under the reference [N]."""
    return mean_loss(measured, REFERENCE)


REFERENCE_LOSS = Score(
    name="reference_loss",
    formula="L_ref / tokens",
    needs=(REFERENCE,),
    paper="none (baseline)",
    compute=reference_loss,
)
