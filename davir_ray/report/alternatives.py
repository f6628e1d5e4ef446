"""The chosen score beside others that the same measurements give, and beside choices that look at no loss.

Over the sample of ranked rows: of a corpus that it holds whole these are the exact figures. Rank correlations are
Spearman's. A choice of other rows takes as many of the sample as are chosen there; ties go by example id.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.config import ScoreConfig
from davir_ray.coreset.cut_noise import measured_in
from davir_ray.coreset.rank_correlation import RankSample
from davir_ray.ids import keys_of
from davir_ray.scores import SCORES
from davir_ray.scores.score import Floats

COMPARED = ("davir", "rho_sum", "rho_mean", "base_loss", "reference_loss")
"""Scores beside the chosen one, the first two that its measurements give; with both losses these are two of the first
three. `rho_sum` is the known trap: it grows with the length."""
OTHERS = 2


@dataclass(frozen=True)
class Alternative:
    """A way to order rows. correlation: with response tokens; None where either is the same in all rows.

    overlap: part of the chosen rows that the first rows of this order hold too, 0 to 1; None for the chosen score, and
    where none are chosen.
    """

    name: str
    correlation: float | None
    overlap: float | None


def alternatives(sample: pa.Table, chosen: str, config: ScoreConfig) -> list[Alternative]:
    """Compare the chosen score with others. sample: figures.NUMBERS of ranked rows. config: the recipe's."""
    own = Alternative(chosen, length_correlation(sample, sample["score"].to_numpy()), None)
    return [own, *(_beside(sample, name, values) for name, values in others(sample, chosen, config))]


def others(sample: pa.Table, chosen: str, config: ScoreConfig) -> Iterator[tuple[str, Floats]]:
    """Yield names and values [N] of scores that the losses in the table give."""
    measured, found = measured_in(sample), 0
    for name in (one for one in COMPARED if one != chosen):
        if found < OTHERS and set(SCORES[name].needs) <= set(measured.columns):
            found += 1
            yield name, SCORES[name].compute(measured, config)


def _beside(sample: pa.Table, name: str, values: Floats) -> Alternative:
    there = np.isfinite(values)
    rows = sample.filter(pa.array(there))
    return Alternative(name, length_correlation(rows, values[there]), overlap_with_highest(sample, values))


def length_correlation(sample: pa.Table, values: Floats) -> float | None:
    """Correlate values [N] with the response tokens of rows."""
    correlation = RankSample()
    correlation.add(keys_of(sample["example_id"]), values, sample["num_tokens"].fill_null(0).to_numpy())
    return correlation.correlation()


def overlap_with_highest(sample: pa.Table, values: Floats) -> float | None:
    """Return the part of the chosen rows that are among as many with the highest values [N]; NaN is the lowest."""
    selected: NDArray[np.bool_] = np.asarray(sample["selected"])
    if not (count := int(selected.sum())):
        return None
    order = np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")
    return float(selected[order[:count]].sum()) / count


def overlap_with_longest(sample: pa.Table) -> float | None:
    """Return the part of the chosen rows that a choice of the longest responses would hold too."""
    return overlap_with_highest(sample, sample["num_tokens"].fill_null(0).to_numpy().astype(np.float64))
