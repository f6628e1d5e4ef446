"""How many rows stand so near the cut that the rounding of a narrow dtype could move them across it.

A loss of T tokens that was measured in bfloat16 or float16 is off by about ROUNDING[dtype] * sqrt(T) nats. What that
does to a score is told by its derivative: the root of the sum over its losses of the squares of what each one's error
changes. Errors of base and reference are taken for independent, so that this is rather too much than too little.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from davir_ray.config import ScoreConfig
from davir_ray.coreset.borderline import Cut
from davir_ray.coreset.rules.choose import Scan, is_pinned
from davir_ray.coreset.rules.rule import Rule
from davir_ray.ids import keys_of
from davir_ray.schema import View
from davir_ray.scores import SCORES
from davir_ray.scores.score import BASE, REFERENCE, Floats, Measured, Score
from davir_ray.storage.typed import Written

ROUNDING = {"bfloat16": 0.06, "float16": 0.0075}
"""Nats: the error of a row's summed loss over the square root of its tokens. Measured for bfloat16
(benchmarks/number_noise.py); float16 has 3 bits more and is taken for an eighth of it."""
COLUMNS = (
    *("example_id", "source", "rank", "selected", "dropped_by"),
    *("score", "base_loss", "reference_loss", "num_tokens"),
)
BAND = 2.0
"""Errors, on either side of the cut."""


class CutNoise(Written):
    """Rows that stand within two errors of the cut."""

    dtype: str
    """Floating-point type of the measurements."""
    nats: float
    """Error of a row's summed loss over the square root of its tokens, in nats."""
    selected: int
    """Chosen rows within two errors of the cut, without those of kept sources."""
    left_out: int
    """Rows within two errors of the cut that its rule left out."""


@dataclass(frozen=True)
class Rounding:
    """What decides how far rounding moves a score: the formula, its settings, and the dtype of its measurements."""

    score: Score
    config: ScoreConfig
    dtype: str

    @property
    def is_known(self) -> bool:
        """Whether the dtype is narrow, and the losses in a scored table give the score: a user's may read more."""
        return (
            self.dtype in ROUNDING
            and SCORES.get(self.score.name) is self.score
            and self.score.survey is None
            and len(self.score.needs) > 0
            and set(self.score.needs) <= {BASE, REFERENCE}
        )

    def of(self, table: pa.Table) -> Floats:
        """Return the error of each row's score [N], from `base_loss`, `reference_loss` and `num_tokens`."""
        measured = measured_in(table)
        error = ROUNDING[self.dtype] * np.sqrt(measured.num_tokens[View.RESPONSE])
        value = self.score.compute(measured, self.config)
        moved = [
            self.score.compute(_with_error(measured, need, error), self.config) for need in self.score.needs
        ]
        errors: Floats = np.sqrt(sum((one - value) ** 2 for one in moved))
        return errors


def measured_in(table: pa.Table) -> Measured:
    """Return what a scored table knows of its rows' responses, as a score reads it."""
    losses = {BASE: table["base_loss"], REFERENCE: table["reference_loss"]}
    known = {need: pa.table({"loss": one}) for need, one in losses.items() if one.null_count < len(one)}
    tokens = {View.RESPONSE: table["num_tokens"].fill_null(0).to_numpy()}
    return Measured(known, tokens, keys_of(table["example_id"]))


def count_near(
    scan: Scan, cut: Cut | None, rules: Sequence[Rule], rounding: Rounding | None
) -> CutNoise | None:
    """Count the rows within BAND errors of a cut that would be on its other side; None where nothing is known.

    Those are chosen rows that no rule keeps whatever their rank, and rows that the cut's own rule left out.
    """
    if cut is None or rounding is None or not rounding.is_known:
        return None
    selected = left_out = 0
    for table in scan(COLUMNS):
        ranked = table.filter(table["rank"].is_valid())
        near = _is_near(ranked, cut, rounding)
        free = np.asarray(ranked["selected"]) & ~is_pinned(ranked, rules)
        out = np.asarray(pc.fill_null(pc.equal(ranked["dropped_by"], cut.rule), False))
        selected += int((near & free).sum())
        left_out += int((near & out).sum())
    return CutNoise(dtype=rounding.dtype, nats=ROUNDING[rounding.dtype], selected=selected, left_out=left_out)


def _is_near(ranked: pa.Table, cut: Cut, rounding: Rounding) -> NDArray[np.bool_]:
    if not len(ranked):
        return np.zeros(0, dtype=bool)
    distance = np.abs(ranked["score"].to_numpy()[:, None] - np.array(cut.scores)).min(axis=1)
    near: NDArray[np.bool_] = distance <= BAND * rounding.of(ranked)
    return near


def _with_error(measured: Measured, need: object, error: Floats) -> Measured:
    """Return the measurements with one of the losses a little larger."""
    columns = {
        one: pa.table({"loss": table["loss"].to_numpy() + error}) if one == need else table
        for one, table in measured.columns.items()
    }
    return replace(measured, columns=columns)
