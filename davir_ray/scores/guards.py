"""What every formula does with losses that it cannot use. This is the one place that says so.

A value that is NaN leaves its row without a score (status `no_score`); the row is ranked nowhere and
never lost.

- A view without scored tokens, or with a loss that is not finite, has a mean loss of NaN.
- A ratio is NaN where what it divides by is below `score.min_loss` (a mean, in nats a token), zero or
  negative: there the quotient is noise. `score.min_loss` guards nothing else: differences and means need
  no guard.
- A result that overflows is NaN.
"""

import numpy as np

from davir_ray.schema import Need
from davir_ray.scores.score import Floats, Measured


def sum_loss(measured: Measured, need: Need) -> Floats:
    """Return nats summed over the scored tokens [N]; NaN where they are not finite or no token is scored."""
    loss = measured.floats(need)
    return np.where(np.isfinite(loss) & (measured.num_tokens[need.view] > 0), loss, np.nan)


def mean_loss(measured: Measured, need: Need) -> Floats:
    """Return nats a scored token [N]; NaN as in `sum_loss`."""
    tokens = np.maximum(measured.num_tokens[need.view], 1).astype(np.float64)
    return sum_loss(measured, need) / tokens


def difference(left: Floats, right: Floats) -> Floats:
    """Subtract [N] from [N]; NaN where a side is NaN or the difference overflows."""
    with np.errstate(over="ignore"):
        return _only_finite(left - right)


def ratio(top: Floats, bottom: Floats, min_loss: float) -> Floats:
    """Divide [N] by mean losses [N]; NaN where `bottom` is not above zero or below `min_loss`."""
    usable = (bottom >= min_loss) & (bottom > 0)
    with np.errstate(over="ignore"):
        return _only_finite(np.where(usable, top, np.nan) / np.where(usable, bottom, 1.0))


def exp(values: Floats) -> Floats:
    """Return e to the values [N]; NaN where that overflows."""
    with np.errstate(over="ignore"):
        return _only_finite(np.exp(values))


def _only_finite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)
