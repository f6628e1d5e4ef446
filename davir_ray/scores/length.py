"""The number of response tokens that count: the baseline that loss-based scores have to beat.

length(x, y) = tokens(y)
"""

import numpy as np

from davir_ray.config import ScoreConfig
from davir_ray.schema import View
from davir_ray.scores.score import Floats, Measured, Score


def length(measured: Measured, config: ScoreConfig) -> Floats:
    """Return scored tokens [N]; NaN where there are none."""
    tokens = measured.num_tokens[View.RESPONSE]
    return np.where(tokens > 0, tokens.astype(np.float64), np.nan)


LENGTH = Score(name="length", formula="response tokens", needs=(), paper="none (baseline)", compute=length)
