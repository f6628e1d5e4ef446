"""What a score is: a formula over measurements, and which measurements it needs.

N examples. Losses are in nats, summed over the scored tokens of a view.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.config import ScoreConfig
from davir_ray.measure.kind import Aimed, resolve_kind
from davir_ray.schema import Need, View

Floats = NDArray[np.float64]

BASE = Need("loss", "base", View.RESPONSE)
REFERENCE = Need("loss", "reference", View.RESPONSE)
BASE_ALONE = Need("loss", "base", View.RESPONSE_ALONE)


@dataclass(frozen=True, slots=True)
class TokenLists:
    """A value for each counted token of N examples. values: [sum of lengths]; lengths: int64 [N], 0 where none."""

    values: NDArray[Any]
    lengths: NDArray[np.int64]

    @property
    def owners(self) -> NDArray[np.int64]:
        """The example that each value is of: int64 [sum of lengths]."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def sums(self) -> Floats:
        """Return the sum of each example's values, in float64 [N]; NaN for an example without any."""
        sums = np.bincount(self.owners, weights=self.values, minlength=len(self.lengths))
        return np.where(self.lengths > 0, sums, np.nan)

    def means(self) -> Floats:
        """Return the mean of each example's values, in float64 [N]; NaN for an example without any."""
        means: Floats = self.sums() / np.maximum(self.lengths, 1)
        return means


@dataclass(frozen=True, slots=True)
class TargetMeasured:
    """What a score may know of the target. subtasks: their names. weights: one a checkpoint of the warm-up. vectors:
    model -> subtask -> float32 [M, H], what was measured of its M rows under it.
    """

    subtasks: tuple[str, ...]
    weights: tuple[float, ...]
    vectors: Mapping[str, Mapping[str, NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of N examples.

    columns: for each need a table [N] with the columns of its kind, null where a row has no measurement. num_tokens:
    scored tokens [N] of each view, 0 where a row has none. example_id: `S16` [N].
    """

    columns: Mapping[Need, pa.Table]
    num_tokens: Mapping[View, NDArray[np.int64]]
    example_id: NDArray[np.bytes_]
    target: "TargetMeasured | None" = None

    def series(self, need: Need) -> list[Need]:
        """Return the needs for each model of a series, in order; for a model alone, the need itself."""
        names = [need.model, *(f"{need.model}-{index}" for index in range(len(self.columns)))]
        return [one for name in names if (one := need._replace(model=name)) in self.columns]

    def floats(self, need: Need, column: str = "loss") -> Floats:
        """Return a column with one number an example, as float64 [N]; NaN where there is none."""
        numbers = self.columns[need][column].cast(pa.float64())
        return np.asarray(numbers.to_numpy(), dtype=np.float64)

    def lists(self, need: Need, column: str) -> TokenLists:
        """Return a column with one number a counted token."""
        lists = self.columns[need][column].combine_chunks()
        lengths = lists.value_lengths().fill_null(0).to_numpy()
        return TokenLists(lists.flatten().to_numpy(), lengths.astype(np.int64))


@dataclass(frozen=True, slots=True)
class Survey:
    """What a score has to know of the whole corpus before it can score a row, found in rounds.

    `count` returns an int64 array for some rows, given the sums of the earlier rounds; the arrays of all rows are
    added up. Counts do not depend on the order of rows, so the result does not either.
    """

    rounds: int
    count: Callable[[Measured, ScoreConfig, "Surveyed"], NDArray[np.int64]]


Surveyed = tuple[NDArray[np.int64], ...]
"""The sums of each round of a survey."""


OF_GRADIENTS = ("rose", "less", "gradient_cosine", "projected_step")
"""Kinds of measurement that are gradients, under the checkpoints of a warm-up."""

SETTINGS = ("min_loss", "seed", "token_share")
"""The settings of the recipe's section `score` that are for some formulas."""


@dataclass(frozen=True, slots=True)
class Score:
    """A score. `compute` returns float64 [N]; a value that is not finite leaves the row without a score."""

    name: str
    formula: str
    needs: tuple[Need, ...]
    paper: str
    compute: Callable[..., Floats]
    """From (Measured, ScoreConfig), and Surveyed where the score has a survey."""
    settings: tuple[str, ...] = ()
    """The settings of the recipe's section `score` that the formula reads: of SETTINGS. Beside a built-in score the
    others are refused."""
    pairs_only: bool = False
    """The score is defined for preference pairs only."""
    survey: Survey | None = None
    lowest_first: bool = False
    """The paper takes the lowest values: a recipe that ranks the highest first is warned."""
    parts: Callable[[Measured, ScoreConfig], dict[str, Floats]] | None = None
    """The score for each subtask of the target [N]."""
    of_target: tuple[Need, ...] = ()
    """What is measured of the target's rows."""
    of_target_pairs: bool = False
    """The rows of `target` have to be preference pairs."""
    undefined: str = "a loss is too close to zero, or the value overflows"
    """Why a row has no value though all that the score needs is measured: the reason of its status `no_score`."""

    @property
    def reads_target(self) -> bool:
        """Whether what it needs depends on the rows of `target`."""
        return bool(self.of_target) or any(_is_aimed(need) for need in self.needs)

    @property
    def cost(self) -> str:
        """Forward passes an example, in words."""
        return " + ".join(map(pass_of, self.needs)) or "none"


def _is_aimed(need: Need) -> bool:
    return isinstance(resolve_kind(need.kind), Aimed)


def pass_of(need: Need) -> str:
    """Write a need as people read it: `base(response)`, with its kind where that is more than the loss."""
    kind = "" if need.kind == "loss" else f", {need.kind}"
    return f"{need.model}({need.view}{kind})"
