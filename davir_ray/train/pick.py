"""Which examples are trained on. Pure: example ids in, ranks out."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from davir_ray.corpus.folds import Fold, in_sample
from davir_ray.ids import Keys, find


class Pick(Protocol):
    """A choice among the examples of a corpus."""

    def ranks(self, example_ids: Keys) -> NDArray[np.int64]:
        """Return the rank of each example [N], 0 where ranks say nothing, -1 where it is not picked."""
        ...


@dataclass(frozen=True)
class Everything:
    """All examples."""

    def ranks(self, example_ids: Keys) -> NDArray[np.int64]:
        """Pick every example."""
        return np.zeros(len(example_ids), dtype=np.int64)


@dataclass(frozen=True)
class Sample:
    """About a share of the examples."""

    fraction: float

    def ranks(self, example_ids: Keys) -> NDArray[np.int64]:
        """Pick by a hash of the content."""
        return np.where(in_sample(example_ids, self.fraction), 0, -1)


@dataclass(frozen=True)
class Outside:
    """The examples that are not in a fold."""

    fold: Fold

    def ranks(self, example_ids: Keys) -> NDArray[np.int64]:
        """Pick what the fold does not hold."""
        return np.where(self.fold.holds(example_ids), -1, 0)


@dataclass(frozen=True)
class CoreSet:
    """The examples of a core-set. example_ids: sorted `S16` [K]; rank: their ranks, from 1 [K]."""

    example_ids: Keys
    rank: NDArray[np.int64]

    def ranks(self, example_ids: Keys) -> NDArray[np.int64]:
        """Pick the examples of the core-set."""
        if len(self.example_ids) == 0:
            return np.full(len(example_ids), -1, dtype=np.int64)
        index = find(example_ids, self.example_ids)
        return np.where(index < 0, -1, self.rank[index])
