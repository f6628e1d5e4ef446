"""ROSE, LESS and their plain relative: how far a training step on a row moves the target.

    rose(x, y)             = max over subtasks k of s_k,  s_k = sum over checkpoints i of w_i * c_ik
    less(x, y)             = the same
    gradient_cosine(x, y)  = the same
    less_projected(x, y)   = less, of projections
    rose_projected(x, y)   = rose, of projections

c_ik is the mean over the rows v of subtask k of cos(G_i(x, y), g_i(v)). G is Adam's step on the row, and in
`gradient_cosine` its plain gradient. g is the gradient of a row of the target: in `rose` of DPO's loss of a pair, in
the others of the mean loss of a response. w is the mean learning rate of the checkpoint's epoch, as a share of all. A
step goes against its gradient, so a positive number means that it lowers the target's loss.

The last two compare projections to 8,192 numbers by random signs, as published: P G with P g. Their P G are stored and
know of no target, so that another target measures no row of the corpus again. A cosine is off by about 1/sqrt(8192).

ROSE: arXiv 2412.00631. LESS: Xia et al., ICML 2024, arXiv 2402.04333. The sum over checkpoints is TracIn's (arXiv
2002.08484). The measurements are in influence/.
"""

import numpy as np
from numpy.typing import NDArray

from davir_ray.config import ScoreConfig
from davir_ray.schema import Need, View
from davir_ray.scores.score import Floats, Measured, Score

PROJECTED = Need("projected_step", "warmup", View.RESPONSE)


def _under_all(measured: Measured, need: Need) -> NDArray[np.float64]:
    """Return the weighted sum over the checkpoints of each row's cosines [N, K]; NaN where a row has none."""
    assert measured.target is not None
    weights = np.asarray(measured.target.weights)
    of_checkpoints = [measured.lists(one, "cosines") for one in measured.series(need)]
    total = np.zeros((len(measured.example_id), len(measured.target.subtasks)))
    for weight, cosines in zip(weights / weights.sum(), of_checkpoints, strict=True):
        total[cosines.lengths > 0] += weight * cosines.values.reshape(-1, total.shape[1])
        total[cosines.lengths == 0] = np.nan
    return total


def _score(
    name: str, formula: str, paper: str, *, of_target: tuple[Need, ...] = (), pairs: bool = False
) -> Score:
    """Put a score together. of_target: where the measurements know of no target, what is measured of its rows."""
    need = of_target[0] if of_target else Need(name, "warmup", View.RESPONSE)

    def compute(measured: Measured, _: ScoreConfig) -> Floats:
        return np.asarray(_under_all(measured, need).max(axis=1))

    def parts(measured: Measured, _: ScoreConfig) -> dict[str, Floats]:
        assert measured.target is not None
        return dict(zip(measured.target.subtasks, _under_all(measured, need).T, strict=True))

    return Score(
        name,
        formula,
        (need,),
        paper,
        compute,
        parts=parts,
        of_target=of_target,
        of_target_pairs=pairs,
        undefined="a step on it has no length",
    )


ROSE = _score(
    "rose",
    "max over subtasks of the mean cosine of Adam's step on the row with the DPO gradients of the target's pairs",
    "arXiv 2412.00631 (ROSE)",
    pairs=True,
)
LESS = _score(
    "less",
    "max over subtasks of the mean cosine of Adam's step on the row with the gradients of the target's rows",
    "arXiv 2402.04333 (LESS)",
)
GRADIENT_COSINE = _score(
    "gradient_cosine",
    "max over subtasks of the mean cosine of the row's gradient with the gradients of the target's rows",
    "arXiv 2002.08484 (TracIn, with cosines)",
)
LESS_PROJECTED = _score(
    "less_projected",
    "less, of projections to 8,192 numbers that are stored, for any target",
    "arXiv 2402.04333 (LESS)",
    of_target=(PROJECTED,),
)
ROSE_PROJECTED = _score(
    "rose_projected",
    "rose, of projections to 8,192 numbers that are stored, for any target",
    "arXiv 2412.00631 (ROSE)",
    of_target=(PROJECTED,),
    pairs=True,
)
