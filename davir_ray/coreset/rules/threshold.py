"""The rule `threshold`: rows whose score lies within bounds."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from pydantic import model_validator

from davir_ray.coreset.rules.rule import Mask, Rows, Rule


class ThresholdRule(Rule):
    """Keep rows whose score lies within bounds, both included."""

    cuts: ClassVar[Literal["ranking"]] = "ranking"

    type: Literal["threshold"] = "threshold"
    min_score: float | None = None
    """The lowest score that stays; without it, no row is too low."""
    max_score: float | None = None
    """The highest score that stays; without it, no row is too high."""

    @model_validator(mode="after")
    def _one_bound(self) -> "ThresholdRule":
        if self.min_score is None and self.max_score is None:
            raise ValueError("needs min_score, max_score or both")
        return self

    @property
    def cut_scores(self) -> tuple[float, ...]:
        """The bounds."""
        return tuple(one for one in (self.min_score, self.max_score) if one is not None)

    def keep(self, rows: Rows) -> Iterator[Mask]:
        """Keep rows whose score lies within the bounds."""
        low = -np.inf if self.min_score is None else self.min_score
        high = np.inf if self.max_score is None else self.max_score
        for table in rows("score"):
            score = table["score"].to_numpy()
            yield (score >= low) & (score <= high)
