"""RHO: the plain difference of losses, DavIR's un-normalised baseline.

    rho_sum(x, y)  = L_base(y|x) - L_ref(y|x)                 nats
    rho_mean(x, y) = (L_base(y|x) - L_ref(y|x)) / tokens(y)   nats a token

The two rank differently: `rho_sum` grows with the length of the response. Sources disagree on which of
them the DavIR paper calls RHO-LM, so neither is called plain `rho`. The highest values are taken.

Mindermann et al., "Prioritized Training on Points that are Learnable, Worth Learning, and Not Yet
Learnt", ICML 2022, arXiv 2206.07137. There the first model is the one in training, the second was
trained on held-out data, and the choice is made online in each batch; here both are fixed, as in the
comparison of the DavIR paper.
"""

from davir_ray.config import ScoreConfig
from davir_ray.scores.guards import difference, mean_loss, sum_loss
from davir_ray.scores.score import BASE, REFERENCE, Floats, Measured, Score

PAPER = "arXiv 2206.07137 (RHO-Loss, ICML 2022); arXiv 2310.13008v2"


def rho_sum(measured: Measured, config: ScoreConfig) -> Floats:
    """Return the reduction in loss, in nats [N]."""
    return difference(sum_loss(measured, BASE), sum_loss(measured, REFERENCE))


def rho_mean(measured: Measured, config: ScoreConfig) -> Floats:
    """Return the reduction in loss, in nats a token [N]."""
    return difference(mean_loss(measured, BASE), mean_loss(measured, REFERENCE))


RHO_SUM = Score("rho_sum", "L_base - L_ref, summed over tokens", (BASE, REFERENCE), PAPER, rho_sum)
RHO_MEAN = Score("rho_mean", "L_base - L_ref, mean over tokens", (BASE, REFERENCE), PAPER, rho_mean)
