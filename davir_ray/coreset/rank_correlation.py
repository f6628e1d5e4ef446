"""Spearman's rank correlation of score and response length, exact, over rows that come in order of score.

    rho = cov(X, Y) / sqrt(var(X) var(Y)),   X, Y the mid-ranks of scores and lengths (ties share their mean)

The order gives X, a histogram of lengths gives Y. All sums are integers of doubled mid-ranks, so the result
does not depend on how the rows were cut into parts. L lengths, from 0 to the longest.
"""

from math import sqrt

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


class RankCorrelation:
    """Fed with the rows in order of score, highest or lowest first."""

    def __init__(self, lengths: Counts) -> None:
        """Take the number of rows of each length [L]."""
        self.lengths = lengths
        self.by_length = np.zeros_like(lengths)  # sum of the doubled mid-ranks of the rows of each length
        self.ties = 0  # sum of t**3 - t over the runs of t equal scores
        self.before = 0  # rows before the run of equal scores at the end of what was fed
        self.run = np.zeros_like(lengths)  # rows of each length in that run: more of it may follow
        self.first = self.last = np.nan

    def add(self, score: NDArray[np.float64], length: Counts) -> None:
        """Take the next rows [N]."""
        if len(score) == 0:
            return
        starts = np.flatnonzero(score != np.concatenate(([self.last], score[:-1])))
        head = int(starts[0]) if len(starts) else len(score)
        self.run += self._count(length[:head])
        if len(starts):
            self._close()
            self._add_runs(starts - head, length[head:])
        self.first = score[0] if np.isnan(self.first) else self.first
        self.last = score[-1]

    def _count(self, length: Counts) -> Counts:
        return np.bincount(length, minlength=len(self.lengths))

    def _close(self) -> None:
        """Add the run at the end, which is now known to be whole."""
        size = int(self.run.sum())
        self.by_length += self.run * (2 * self.before + size + 1)
        self.ties += size**3 - size
        self.before += size

    def _add_runs(self, starts: Counts, length: Counts) -> None:
        """Add all runs but the last, which stays open."""
        sizes, last = np.diff(starts), int(starts[-1])
        doubled = 2 * (self.before + starts[:-1]) + sizes + 1
        np.add.at(self.by_length, length[:last], np.repeat(doubled, sizes))
        self.ties += _ties(sizes)
        self.before += last
        self.run = self._count(length[last:])

    def finish(self) -> float | None:
        """Return the correlation of all rows; None where all scores, or all lengths, are equal."""
        self._close()
        rows = self.before
        middle = 2 * np.cumsum(self.lengths) - self.lengths + 1
        sums = zip(self.by_length.tolist(), self.lengths.tolist(), middle.tolist(), strict=True)
        cov: int = sum((x - count * (rows + 1)) * (y - (rows + 1)) for x, count, y in sums if count)
        cubes = rows**3 - rows
        spread: int = (cubes - self.ties) * (cubes - _ties(self.lengths))
        if spread == 0:
            return None
        rising = max(-1.0, min(1.0, 3 * cov / sqrt(spread)))
        return -rising if self.first > self.last else rising


def _ties(sizes: Counts) -> int:
    values, counts = np.unique(sizes, return_counts=True)
    return sum((t**3 - t) * n for t, n in zip(values.tolist(), counts.tolist(), strict=True))
