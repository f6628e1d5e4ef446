"""Which rows belong to a fold or a sample: told from a hash of their content, so repeats always go together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from davir_ray.ids import Keys


@dataclass(frozen=True)
class Fold:
    """Fold `index` of `folds`."""

    index: int
    folds: int

    def holds(self, example_ids: Keys) -> NDArray[np.bool_]:
        """Tell which examples are in this fold; each is in exactly one."""
        inside: NDArray[np.bool_] = _word(example_ids, 1) % self.folds == self.index
        return inside


def in_sample(example_ids: Keys, fraction: float) -> NDArray[np.bool_]:
    """Tell which examples are in a sample of about this share; a larger sample holds every smaller one."""
    inside: NDArray[np.bool_] = _word(example_ids, 2) < fraction * 2**32
    return inside


def _word(example_ids: Keys, index: int) -> NDArray[np.int64]:
    """Return 32 bits of each id as a number; word 0 is left to `partition_of`."""
    return np.ascontiguousarray(example_ids).view(">u4").reshape(-1, 4)[:, index].astype(np.int64)
