"""RDS+: how like a row's hidden states are to those of a row of the target.

    rds(x, y) = max over subtasks k of s_k,  s_k = max over the rows v of subtask k of  cos(h(x, y), h(v))

h is the mean of the last hidden states of a sequence, weighted by position (1 to T). The paper takes rows in turn for
each row of the target; here rule `round_robin` takes them in turn for each subtask.

Ivison et al., "Large-Scale Data Selection for Instruction Tuning", arXiv 2503.01807.
"""

import numpy as np
from numpy.typing import NDArray

from davir_ray.config import ScoreConfig
from davir_ray.schema import Need, View
from davir_ray.scores.score import Floats, Measured, Score

NEED = Need("representation", "base", View.RESPONSE)


def of_subtasks(measured: Measured, config: ScoreConfig) -> dict[str, Floats]:
    """Return the largest cosine of each row with a row of each subtask [N]; NaN where a row has no vector."""
    assert measured.target is not None
    found = measured.lists(NEED, "vector")
    there = found.lengths > 0
    rows = _normalised(found.values.reshape(int(there.sum()), -1).astype(np.float64)) if there.any() else None
    return {
        name: _nearest(rows, there, vectors) for name, vectors in measured.target.vectors[NEED.model].items()
    }


def _nearest(
    rows: NDArray[np.float64] | None, there: NDArray[np.bool_], vectors: NDArray[np.float32]
) -> Floats:
    nearest = np.full(len(there), np.nan)
    if rows is not None:
        nearest[there] = (rows @ _normalised(vectors.astype(np.float64)).T).max(axis=1)
    return nearest


def _normalised(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def nearest(measured: Measured, config: ScoreConfig) -> Floats:
    """Return the largest cosine of each row with any row of the target [N]."""
    return np.asarray(np.max(list(of_subtasks(measured, config).values()), axis=0))


RDS = Score(
    "rds",
    "max over the target's rows of the cosine of hidden states, weighted by position",
    (NEED,),
    "arXiv 2503.01807 (RDS+)",
    nearest,
    parts=of_subtasks,
    of_target=(NEED,),
    undefined="its hidden states are 0",
)
