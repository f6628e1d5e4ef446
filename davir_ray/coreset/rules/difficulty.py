"""The rule `difficulty`: a band between two exact quantiles of the base's mean loss.

The quantiles are order statistics of all rows that reach the rule. They are found without sorting or holding the rows:
floats become integers that sort alike, and each of four scans counts one 16-bit digit of them.
"""

from collections.abc import Callable, Iterator, Sequence
from math import ceil, floor
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from davir_ray.coreset.rank import sortable
from davir_ray.coreset.rules.best import exact
from davir_ray.coreset.rules.rule import Mask, Rows, Rule, tokens_in
from davir_ray.errors import RecipeError
from davir_ray.schema import Need, View

SortKeys = NDArray[np.uint64]
DIGIT = 16


class DifficultyRule(Rule):
    """Keep rows whose mean base loss a token lies between two quantiles of the rows that reach this rule."""

    needs: ClassVar[tuple[Need, ...]] = (Need("loss", "base", View.RESPONSE),)

    type: Literal["difficulty"] = "difficulty"
    min_quantile: float = Field(0.0, ge=0, le=1)
    """Leave out the easiest rows: this share of all, rounded down."""
    max_quantile: float = Field(1.0, ge=0, le=1)
    """Leave out the hardest rows: one minus this share of all, rounded down."""

    @model_validator(mode="after")
    def _ordered(self) -> "DifficultyRule":
        if self.min_quantile >= self.max_quantile:
            raise ValueError("min_quantile must be below max_quantile")
        return self

    def keep(self, rows: Rows) -> Iterator[Mask]:
        """Keep rows between two quantiles of base_loss / num_tokens, both included.

        Of n rows it leaves out the floor(min_quantile * n) easiest and the floor((1 - max_quantile) * n)
        hardest, but none that equals a row it keeps. A row without a base loss is left out; `RecipeError` if no
        row has one.
        """

        def keys() -> Iterator[SortKeys]:
            return (
                sortable(loss[~np.isnan(loss)]) for loss in map(_mean_loss, rows("base_loss", "num_tokens"))
            )

        known = sum(len(part) for part in keys())
        if known == 0 and any(len(table) for table in rows("rank")):
            raise RecipeError("select.difficulty: no row has a base loss; the score does not measure it")
        places = [floor(exact(self.min_quantile) * known), ceil(exact(self.max_quantile) * known) - 1]
        low, high = order_statistics(keys, places) if known else (0, 0)
        for loss in map(_mean_loss, rows("base_loss", "num_tokens")):
            key = sortable(loss)
            yield ~np.isnan(loss) & (key >= low) & (key <= high)


def _mean_loss(table: pa.Table) -> NDArray[np.float64]:
    loss: NDArray[np.float64] = table["base_loss"].to_numpy()
    tokens = np.maximum(tokens_in(table), 1).astype(np.float64)
    return np.divide(loss, tokens)


def order_statistics(scan: Callable[[], Iterator[SortKeys]], places: Sequence[int]) -> list[int]:
    """Return the keys that sorting would put at `places`, counted from 0. Scans the keys four times."""
    found, left = [0 for _ in places], list(places)
    for shift in range(64 - DIGIT, -1, -DIGIT):
        for index, counts in enumerate(_count_digits(scan, found, shift)):
            upto = np.cumsum(counts)
            digit = int(np.searchsorted(upto, left[index], side="right"))
            left[index] -= int(upto[digit] - counts[digit])
            found[index] = (found[index] << DIGIT) | digit
    return found


def _count_digits(
    scan: Callable[[], Iterator[SortKeys]], found: Sequence[int], shift: int
) -> list[NDArray[np.int64]]:
    """Count the digit at `shift` of the keys whose higher digits were found, for each that is looked for."""
    counts = [np.zeros(1 << DIGIT, dtype=np.int64) for _ in found]
    for keys in scan():
        upto = keys >> np.uint64(shift)
        digit = (upto & np.uint64((1 << DIGIT) - 1)).astype(np.int64)
        for higher, counted in zip(found, counts, strict=True):
            counted += np.bincount(digit[upto >> np.uint64(DIGIT) == higher], minlength=1 << DIGIT)
    return counts
