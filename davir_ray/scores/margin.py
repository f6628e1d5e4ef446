"""The implicit-reward margin of a preference pair: how far the reference prefers the chosen response.

    r(y)           = log p_ref(y|x) - log p_base(y|x) = L_base(y|x) - L_ref(y|x)     (summed nats)
    margin(x,y,y') = r(chosen) - r(rejected)

r is DPO's implicit reward over beta, up to a constant of the prompt that the margin cancels, with
`reference` as the trained policy and `base` as the frozen one. Above 0 the reference has moved towards
the chosen response. The sum, as in DPO, makes the margin depend on length. Defined for preference pairs
only.

Rafailov et al., "Direct Preference Optimization", NeurIPS 2023, arXiv 2305.18290.
"""

from davir_ray.config import ScoreConfig
from davir_ray.schema import Need, View
from davir_ray.scores.guards import difference, sum_loss
from davir_ray.scores.score import Floats, Measured, Score


def margin(measured: Measured, config: ScoreConfig) -> Floats:
    """Return the reward of the chosen response less that of the rejected one, in nats [N]."""
    return difference(_reward(measured, View.RESPONSE), _reward(measured, View.REJECTED))


def _reward(measured: Measured, view: View) -> Floats:
    base, reference = (sum_loss(measured, Need("loss", model, view)) for model in ("base", "reference"))
    return difference(base, reference)


MARGIN = Score(
    name="margin",
    formula="(L_base - L_ref)(chosen) - (L_base - L_ref)(rejected)",
    needs=(
        Need("loss", "base", View.RESPONSE),
        Need("loss", "base", View.REJECTED),
        Need("loss", "reference", View.RESPONSE),
        Need("loss", "reference", View.REJECTED),
    ),
    paper="arXiv 2305.18290 (DPO, NeurIPS 2023)",
    compute=margin,
    pairs_only=True,
)
