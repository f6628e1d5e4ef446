"""IFD: how little the instruction helps with the answer.

    ifd(x, y) = mean loss of y given x / mean loss of y alone       (both under the base)

The highest values are taken. Above 1 the instruction makes the answer less likely; the paper drops such
rows: `select: [{type: threshold, max_score: 1}, ...]`. The two views may score different numbers of
tokens, so each mean is over the tokens of its own view.

Li et al., "From Quantity to Quality: Boosting LLM Performance with Self-Guided Data Selection for
Instruction Tuning", NAACL 2024, arXiv 2308.12032. The loss ratio as in the authors' code
(tianyi-lab/Cherry_LLM, 01fac8d). There the model is first tuned on a thousand rows, and the answer alone
follows "### Response:"; here the model is the recipe's base, and the answer alone follows the header
that the template writes before it.
"""

from davir_ray.config import ScoreConfig
from davir_ray.scores.guards import mean_loss, ratio
from davir_ray.scores.score import BASE, BASE_ALONE, Floats, Measured, Score


def ifd(measured: Measured, config: ScoreConfig) -> Floats:
    """Return the ratio of mean losses [N]."""
    given_prompt = mean_loss(measured, BASE)
    alone = mean_loss(measured, BASE_ALONE)
    return ratio(given_prompt, alone, config.min_loss)


IFD = Score(
    name="ifd",
    formula="mean L_base(y|x) / mean L_base(y)",
    needs=(BASE, BASE_ALONE),
    paper="arXiv 2308.12032 (IFD, NAACL 2024)",
    compute=ifd,
    settings=("min_loss",),
)
