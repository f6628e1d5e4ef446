"""What a score is: a formula over measurements, and which measurements it needs.

N examples. Losses are in nats, summed over the scored tokens of a view.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from davir_ray.config import ScoreConfig
from davir_ray.schema import Need, View

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of N examples. Entries are NaN (losses) or 0 (counts) where a row has none.

    loss: summed nats [N] for each need. num_tokens: scored tokens [N] of each view. example_id: `S16` [N].
    """

    loss: Mapping[Need, Floats]
    num_tokens: Mapping[View, NDArray[np.int64]]
    example_id: NDArray[np.bytes_]


@dataclass(frozen=True, slots=True)
class Score:
    """A score. `compute` returns float64 [N]; a value that is not finite leaves the row without a score."""

    name: str
    formula: str
    needs: tuple[Need, ...]
    paper: str
    compute: Callable[[Measured, ScoreConfig], Floats]
    settings: tuple[str, ...] = ()
    """The settings of the recipe's section `score` that the formula reads: of `min_loss` and `seed`. Beside a built-in
    score the others are refused."""
    pairs_only: bool = False
    """The score is defined for preference pairs only."""

    @property
    def cost(self) -> str:
        """Forward passes an example, in words."""
        passes = [f"{role}({view})" for role, view in self.needs]
        return " + ".join(passes) or "none"
