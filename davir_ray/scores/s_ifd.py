"""S-IFD: IFD on the tokens for which the instruction matters (T-SHIRT).

    delta_t(x, y) = loss of y_t given x - loss of y_t alone            (both under the base, in nats)
    s_ifd(x, y)   = exp(mean of delta_t over the tokens of y with |delta_t| among the highest share of the corpus)

The share is `score.token_share` of all tokens of the corpus (0.75 and 0.5 in the paper), and its threshold is exact.
A row without such a token has no score, and so has one whose two views count different tokens: conversations with
several answers (`score_on: last_assistant` makes them alike). The highest values are taken, below 1 as for IFD.

Fu et al., "T-SHIRT: Token-Selective Hierarchical Data Selection for Instruction Tuning", NeurIPS 2025, arXiv
2506.01317. Left out: the mean over noisy copies of the embeddings, which takes 30 more passes a row.
"""

import numpy as np
from numpy.typing import NDArray

from davir_ray.config import ScoreConfig
from davir_ray.schema import Need, View
from davir_ray.scores.guards import exp
from davir_ray.scores.score import Floats, Measured, Score, Survey, Surveyed, TokenLists

GIVEN = Need("token_loss", "base", View.RESPONSE)
ALONE = Need("token_loss", "base", View.RESPONSE_ALONE)

HALF = 2**16
"""Values of one half of the 32 bits of a float. Those of positive floats order as the floats do."""


def s_ifd(measured: Measured, config: ScoreConfig, surveyed: Surveyed) -> Floats:
    """Return S-IFD [N]; NaN where no token counts, or the two views have different ones."""
    deltas = _deltas(measured)
    kept = _bits(deltas) >= _threshold(surveyed, config.token_share)
    counts = np.bincount(deltas.owners[kept], minlength=len(deltas.lengths))
    return exp(TokenLists(deltas.values[kept], counts).means())


def count_tokens(measured: Measured, config: ScoreConfig, surveyed: Surveyed) -> NDArray[np.int64]:
    """Count the tokens by the upper half of the bits of |delta|, then those of one upper half by the lower half."""
    bits = _bits(_deltas(measured))
    if not surveyed:
        return np.bincount(bits // HALF, minlength=HALF)
    upper, _ = _place(surveyed[0], _wanted(surveyed[0], config.token_share))
    return np.bincount(bits[bits // HALF == upper] % HALF, minlength=HALF)


def _deltas(measured: Measured) -> TokenLists:
    """Return delta_t of the rows whose two views count as many tokens; the others have none."""
    given, alone = measured.lists(GIVEN, "losses"), measured.lists(ALONE, "losses")
    alike = given.lengths == alone.lengths
    values = given.values[alike[given.owners]] - alone.values[alike[alone.owners]]
    return TokenLists(values, np.where(alike, given.lengths, 0))


def _bits(deltas: TokenLists) -> NDArray[np.int64]:
    return np.abs(deltas.values.astype(np.float32)).view(np.uint32).astype(np.int64)


def _wanted(counts: NDArray[np.int64], share: float) -> int:
    """Tell how many tokens the share is: at least one, where there is any."""
    return max(1, round(share * int(counts.sum())))


def _place(counts: NDArray[np.int64], wanted: int) -> tuple[int, int]:
    """Return the place of the `wanted`-th value from the top, and how many values stand above that place."""
    above = np.cumsum(counts[::-1])
    index = min(int(np.searchsorted(above, wanted)), len(counts) - 1)
    return len(counts) - 1 - index, int(above[index - 1]) if index else 0


def _threshold(surveyed: Surveyed, share: float) -> int:
    """Return the bits of the smallest |delta| that is kept."""
    wanted = _wanted(surveyed[0], share)
    upper, above = _place(surveyed[0], wanted)
    lower, _ = _place(surveyed[1], wanted - above)
    return upper * HALF + lower


S_IFD = Score(
    name="s_ifd",
    formula="exp(mean of the tokens' L(y_t|x) - L(y_t alone) that are far from 0)",
    needs=(GIVEN, ALONE),
    paper="arXiv 2506.01317 (T-SHIRT, NeurIPS 2025)",
    compute=s_ifd,
    settings=("token_share",),
    undefined="its two views count different tokens, or none of them is among those looked at",
    survey=Survey(2, count_tokens),
)
