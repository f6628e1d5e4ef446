"""How much a short training on the target has lowered the loss of a row: Train on Validation, and CoLoR-Filter.

    tov(x, y)          = mean over checkpoints i of  L(y|x; prior_i) - L(y|x; target_i)     (mean loss of a token)
    color_filter(x, y) = the same of one pair: prior, and conditional

target_i is prior_i after a short training on the target. To first order the row's loss falls by as much as training on
the row would lower the target's, so that forward passes stand in for gradients.

Train on Validation: arXiv 2510.00386, with F(y) = y; its priors are the checkpoints of a warm-up (`start: warmup`), it
ranks within bands of equal length and takes half of the rows at random: rule `mix`. CoLoR-Filter: Brandfonbrener et
al., NeurIPS 2024, arXiv 2406.10670.
"""

import numpy as np

from davir_ray.config import ScoreConfig
from davir_ray.schema import Need, View
from davir_ray.scores.guards import difference, mean_loss
from davir_ray.scores.score import Floats, Measured, Score

PRIOR = Need("loss", "prior", View.RESPONSE)
TARGET = Need("loss", "target", View.RESPONSE)


def fallen(measured: Measured, config: ScoreConfig) -> Floats:
    """Return the nats a token that the target's training took off a row's loss, as a mean over the series [N]."""
    pairs = zip(measured.series(PRIOR), measured.series(TARGET), strict=True)
    falls = [difference(mean_loss(measured, prior), mean_loss(measured, target)) for prior, target in pairs]
    return np.asarray(np.mean(falls, axis=0))


TOV = Score(
    "tov",
    "mean over checkpoints of (L_prior - L_target) / tokens",
    (PRIOR, TARGET),
    "arXiv 2510.00386 (Train on Validation)",
    fallen,
)
COLOR_FILTER = Score(
    "color_filter",
    "(L_prior - L_conditional) / tokens",
    (PRIOR, TARGET),
    "arXiv 2406.10670 (CoLoR-Filter)",
    fallen,
)
