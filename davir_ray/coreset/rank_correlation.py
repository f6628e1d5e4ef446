"""Spearman's rank correlation over a sample of rows: those with the lowest example ids, which are hashes of content.

So what is sampled depends neither on files, parts nor order, and of fewer rows than the sample holds it is all of them.
From a sample of 100,000 rows the standard error is about 0.003.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from davir_ray.ids import Keys

SAMPLE_ROWS = 100_000


class RankSample:
    """A sample of rows with two numbers each. `keys` [N] is sorted; `pairs` is [2, N]."""

    def __init__(self) -> None:
        self.keys: Keys = np.array([], dtype="S16")
        self.pairs: NDArray[np.float64] = np.zeros((2, 0))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def is_full(self) -> bool:
        """Whether a row comes in only for another that goes."""
        return len(self) == SAMPLE_ROWS

    def add(self, keys: Keys, one: ArrayLike, other: ArrayLike) -> None:
        """Take in rows [N], each with an id of its own."""
        pairs = np.array([one, other], dtype=np.float64)
        if self.is_full:
            lower = keys < self.keys[-1]
            keys, pairs = keys[lower], pairs[:, lower]
        keys, pairs = np.concatenate([self.keys, keys]), np.concatenate([self.pairs, pairs], axis=1)
        lowest = np.argsort(keys, kind="stable")[:SAMPLE_ROWS]
        self.keys, self.pairs = keys[lowest], pairs[:, lowest]

    def correlation(self) -> float | None:
        """Return the correlation of the two numbers; None where either is the same in all rows."""
        if any(len(np.unique(numbers)) < 2 for numbers in self.pairs):
            return None
        # Rounded, so that two equal orders are 1 and not 0.9999999999999999, which a limit of 1 would refuse.
        return round(float(np.corrcoef([average_ranks(numbers) for numbers in self.pairs])[0, 1]), 12)


def average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank numbers [N] from 1 on, the lowest first; equal ones share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((2 * last - counts + 1) / 2)[place]
