"""DavIR: the share of its loss that an example gives up in fine-tuning.

    davir(x, y) = (L_base(y|x) - L_ref(y|x)) / L_base(y|x)

L is the loss on the response given the prompt; `reference` is the base fine-tuned on the whole pool. The
highest values are taken. Values lie in (-inf, 1]: 1 is a loss driven to 0, below 0 fine-tuning made the
example worse.

Sum or mean over tokens is the same, since both models score the same tokens. Dividing by L_ref instead
ranks the same wherever both losses are above zero (Appendix C of the paper): either quotient grows with
L_base / L_ref. A base loss near zero makes the ratio noise, hence `score.min_loss`.

Zhou et al., "DavIR: Data Selection via Implicit Reward for Large Language Models", ACL 2025, arXiv
2310.13008v2. Formula from summaries of the paper that agree with its abstract; the paper's body was not
at hand.
"""

from davir_ray.config import ScoreConfig
from davir_ray.scores.guards import difference, mean_loss, ratio
from davir_ray.scores.score import BASE, REFERENCE, Floats, Measured, Score


def davir(measured: Measured, config: ScoreConfig) -> Floats:
    """Return the relative reduction in loss [N]."""
    base = mean_loss(measured, BASE)
    reference = mean_loss(measured, REFERENCE)
    return ratio(difference(base, reference), base, config.min_loss)


DAVIR = Score(
    name="davir",
    formula="(L_base - L_ref) / L_base",
    needs=(BASE, REFERENCE),
    paper="arXiv 2310.13008v2 (DavIR, ACL 2025)",
    compute=davir,
    settings=("min_loss",),
)
