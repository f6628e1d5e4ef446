"""RSR: the rank-surprisal ratio, low where a response is new to the base and yet among what it would say.

    rsr(x, y) = sum_t min(rank_t, 100) / sum_t -log p(y_t | x, y_<t)           (under the base)

rank_t is 1 for the base's likeliest token. The lowest values are taken: `score.order: lowest`. To choose among several
responses to one prompt, group by the prompt and take one of each group.

"RankSurprisalRatio", ACL 2026, arXiv 2601.14249; formula read from its code. A whole data set's value is the
ratio of the two means over its rows, not the mean of the rows' ratios.
"""

from davir_ray.config import ScoreConfig
from davir_ray.schema import Need, View
from davir_ray.scores.guards import mean_loss, ratio
from davir_ray.scores.score import Floats, Measured, Score

RANKS = Need("token_rank", "base", View.RESPONSE)


def rsr(measured: Measured, config: ScoreConfig) -> Floats:
    """Return ranks a nat [N]; NaN where the mean loss is below `score.min_loss`."""
    return ratio(measured.lists(RANKS, "ranks").means(), mean_loss(measured, RANKS), config.min_loss)


RSR = Score(
    name="rsr",
    formula="sum of min(rank, 100) / sum of L",
    needs=(RANKS,),
    paper="arXiv 2601.14249 (RSR, ACL 2026)",
    compute=rsr,
    settings=("min_loss",),
    lowest_first=True,
)
