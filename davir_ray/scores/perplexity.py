"""The base's perplexity on the response: `base_loss` on the scale that filters are often given in.

    perplexity(x, y) = exp(L_base(y|x) / tokens(y))

A loss so large that this overflows (above 709 nats a token) has no score.
"""

from davir_ray.config import ScoreConfig
from davir_ray.scores.guards import exp, mean_loss
from davir_ray.scores.score import BASE, Floats, Measured, Score


def perplexity(measured: Measured, config: ScoreConfig) -> Floats:
    """Return perplexities under the base [N]."""
    return exp(mean_loss(measured, BASE))


PERPLEXITY = Score(
    name="perplexity",
    formula="exp(L_base / tokens)",
    needs=(BASE,),
    paper="none (baseline)",
    compute=perplexity,
)
