"""How the ranked and the chosen rows serve each subtask of the target."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.scores.assemble import subtask_column
from davir_ray.storage.typed import Written


class SubtaskShare(Written):
    """One subtask of the target: how the rows score for it, and for how many it is the one that they score best for."""

    ranked: int
    """Ranked rows whose largest score is the one for this subtask."""
    selected: int
    """Chosen rows whose largest score is the one for this subtask."""
    mean: float | None
    """Mean score for this subtask over the ranked rows; null where there are none."""
    selected_mean: float | None
    """Mean score for this subtask over the chosen rows; null where there are none."""


class SubtaskTotals:
    """Adds up the scores for some subtasks over ranked rows, a part at a time."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.columns = [subtask_column(name) for name in self.names]
        self.rows = np.zeros(2, dtype=np.int64)  # ranked, chosen
        self.leads = np.zeros((2, len(self.names)), dtype=np.int64)
        self.sums = np.zeros((2, len(self.names)))

    def add(self, ranked: pa.Table) -> None:
        """Look at the next ranked rows. Reads `selected` and the subtasks' columns."""
        if not self.names or not len(ranked):
            return
        scores = np.stack([ranked[name].to_numpy() for name in self.columns], axis=1)
        chosen = np.asarray(ranked["selected"])
        for index, some in enumerate((scores, scores[chosen])):
            self.rows[index] += len(some)
            self.leads[index] += np.bincount(some.argmax(axis=1), minlength=len(self.names))
            self.sums[index] += some.sum(axis=0)

    def shares(self) -> dict[str, SubtaskShare]:
        """Return what was added up, by subtask."""
        means = [_means(total, rows) for total, rows in zip(self.sums, self.rows.tolist(), strict=True)]
        return {
            name: SubtaskShare(
                ranked=int(self.leads[0, index]),
                selected=int(self.leads[1, index]),
                mean=means[0][index],
                selected_mean=means[1][index],
            )
            for index, name in enumerate(self.names)
        }


def _means(sums: NDArray[np.float64], rows: int) -> list[float | None]:
    return [one / rows if rows else None for one in sums.tolist()]
