"""Superfiltering's IFD: a ratio of perplexities, measured with a small model.

    ifd_ppl(x, y) = PPL(y|x) / PPL(y) = exp(mean loss of y given x - mean loss of y alone)

A difference of losses, where `ifd` is their ratio: the two rank differently. The highest values are
taken; the paper keeps those below 1 (`threshold`, `max_score: 1`). Its point is that a small base (GPT-2
there) ranks as well as a large one.

Li et al., "Superfiltering: Weak-to-Strong Data Filtering for Fast Instruction-Tuning", ACL 2024, arXiv
2402.00530. As in the authors' code (tianyi-lab/Superfiltering, f0764af), which uses no chat template:
`tokens.template: plain`.
"""

from davir_ray.config import ScoreConfig
from davir_ray.scores.guards import difference, exp, mean_loss
from davir_ray.scores.score import BASE, BASE_ALONE, Floats, Measured, Score


def ifd_ppl(measured: Measured, config: ScoreConfig) -> Floats:
    """Return the ratio of perplexities [N]."""
    given_prompt = mean_loss(measured, BASE)
    alone = mean_loss(measured, BASE_ALONE)
    return exp(difference(given_prompt, alone))


IFD_PPL = Score(
    name="ifd_ppl",
    formula="exp(mean L_base(y|x) - mean L_base(y))",
    needs=(BASE, BASE_ALONE),
    paper="arXiv 2402.00530 (Superfiltering, ACL 2024)",
    compute=ifd_ppl,
)
