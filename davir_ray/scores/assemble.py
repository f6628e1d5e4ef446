"""Put the measurements of a split beside its examples, and score them. Pure: tables in, table out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from davir_ray.config import ScoreConfig
from davir_ray.errors import RecipeError
from davir_ray.ids import keys_of
from davir_ray.schema import COMPLETIONS, SCORABLE, Need, Status, View, is_of_view
from davir_ray.scores.score import Measured, Score


@dataclass(frozen=True)
class Measurements:
    """The sequences of one split (see `Prepared.sequences`) and what was measured of them.

    loss: for each role, nats by position in `sequences`, NaN where there is none.
    failed: for each role, the reason by sequence id.
    """

    sequences: pa.Table
    loss: Mapping[str, NDArray[np.float64]]
    failed: Mapping[str, Mapping[bytes, str]]


def measured_of(examples: pa.Table, found: Measurements, needs: tuple[Need, ...]) -> Measured:
    """Line the measurements up with the examples."""
    count = len(examples)
    view = found.sequences["view"].to_numpy(zero_copy_only=False)
    example = found.sequences["example"].to_numpy()
    tokens = found.sequences["num_tokens"].to_numpy()
    num_tokens, loss = {}, {}
    for name in View:
        num_tokens[name] = np.zeros(count, dtype=np.int64)
        num_tokens[name][example[view == name]] = tokens[view == name]
    for role, name in needs:
        loss[role, name] = np.full(count, np.nan)
        loss[role, name][example[view == name]] = found.loss[role][view == name]
    return Measured(loss, num_tokens, keys_of(examples["example_id"]))


def assemble(
    examples: pa.Table, found: Measurements, needs: tuple[Need, ...], score: Score, config: ScoreConfig
) -> pa.Table:
    """Return the EXAMPLES of a split with their losses, token counts, score, and final status."""
    measured = measured_of(examples, found, needs)
    scorable = np.isin(examples["status"].to_numpy(zero_copy_only=False), [str(s) for s in SCORABLE])
    value = np.array(
        score.compute(measured, config), dtype=np.float64
    )  # a copy: a score may return what it was given
    if value.shape != (len(examples),):
        raise RecipeError(f"score.name: {score.name} returned shape {value.shape} for {len(examples)} rows")
    value[~scorable | ~np.isfinite(value)] = np.nan
    status, reason = examples["status"].to_pylist(), examples["reason"].to_pylist()
    for index in np.flatnonzero(scorable & np.isnan(value)).tolist():
        status[index], reason[index] = str(Status.NO_SCORE), _why(score, measured, index)
    for index, text in _failed_examples(found).items():
        status[index], reason[index] = str(Status.ENGINE_ERROR), text
        value[index] = np.nan
    return pa.table(
        {
            "example_id": examples["example_id"],
            "id": examples["id"],
            "source": examples["source"],
            "group": examples["group"],
            "status": pa.array(status, pa.string()),
            "reason": pa.array(reason, pa.string()),
            "base_loss": _column(measured, ("base", View.RESPONSE)),
            "reference_loss": _column(measured, ("reference", View.RESPONSE)),
            "frozen_chosen_loss": _column(measured, ("base", View.COMPLETION)),
            "frozen_rejected_loss": _column(measured, ("base", View.REJECTED_COMPLETION)),
            "num_tokens": pa.array(
                measured.num_tokens[View.RESPONSE], pa.int32(), mask=measured.num_tokens[View.RESPONSE] == 0
            ),
            "score": pa.array(value, pa.float64(), mask=np.isnan(value)),
        }
    )


def _column(measured: Measured, need: Need) -> pa.Array:
    loss = measured.loss.get(need, np.full(len(measured.example_id), np.nan))
    return pa.array(loss, pa.float64(), mask=np.isnan(loss))


def _failed_examples(found: Measurements) -> dict[int, str]:
    """Name the examples that the engine failed on. What only an export asks for costs no example its rank."""
    reasons: dict[int, str] = {}
    scored = found.sequences.filter(pc.invert(is_of_view(found.sequences, *COMPLETIONS)))
    for role, failed in found.failed.items():
        if failed:
            rows = zip(scored["example"].to_pylist(), scored["sequence_id"].to_pylist(), strict=True)
            reasons |= {index: f"{role}: {failed[key]}" for index, key in rows if key in failed}
    return reasons


def _why(score: Score, measured: Measured, index: int) -> str:
    """Say in words why a row has no score."""
    for (role, view), loss in measured.loss.items():
        if (role, view) in score.needs and not np.isfinite(loss[index]):
            if measured.num_tokens[view][index] == 0:
                return f"{score.name} needs the {view} view, which this row does not have"
            return f"the {role} loss of the {view} is not finite ({loss[index]})"
    return f"{score.name} ({score.formula}) has no finite value: a loss is too close to zero (score.min_loss)"
