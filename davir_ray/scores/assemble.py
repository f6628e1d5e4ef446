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
from davir_ray.schema import COMPLETIONS, OF_SUBTASK, SCORABLE, Need, Status, View, is_of_view
from davir_ray.scores.score import Measured, Score, Surveyed, TargetMeasured

Asked = tuple[str, str]
"""A kind of measurement and the model that is measured."""


@dataclass(frozen=True)
class Measurements:
    """The sequences of one split (see `Prepared.sequences`) and what was measured of them.

    columns: for each kind and model, the kind's columns by position in `sequences`, null where there is nothing.
    failed: for each kind and model, the reason by sequence id.
    """

    sequences: pa.Table
    columns: Mapping[Asked, pa.Table]
    failed: Mapping[Asked, Mapping[bytes, str]]


def subtask_column(subtask: str) -> str:
    """Name the column with the rows' scores for one subtask of the target."""
    return OF_SUBTASK + subtask


def measured_of(
    examples: pa.Table, found: Measurements, needs: tuple[Need, ...], target: TargetMeasured | None = None
) -> Measured:
    """Line the measurements up with the examples."""
    count = len(examples)
    view = found.sequences["view"].to_numpy(zero_copy_only=False)
    example = found.sequences["example"].to_numpy()
    tokens = found.sequences["num_tokens"].to_numpy()
    num_tokens, columns = {}, {}
    for name in View:
        num_tokens[name] = np.zeros(count, dtype=np.int64)
        num_tokens[name][example[view == name]] = tokens[view == name]
    for need in needs:
        place = np.full(count, -1)
        place[example[view == need.view]] = np.flatnonzero(view == need.view)
        rows = pa.array(place, mask=place < 0)
        columns[need] = found.columns[need.kind, need.model].take(rows)
    return Measured(columns, num_tokens, keys_of(examples["example_id"]), target)


def assemble(
    examples: pa.Table,
    found: Measurements,
    measured: Measured,
    score: Score,
    config: ScoreConfig,
    surveyed: Surveyed = (),
) -> pa.Table:
    """Return the EXAMPLES of a split with their losses, token counts, scores, and final status."""
    scorable = np.isin(examples["status"].to_numpy(zero_copy_only=False), [str(s) for s in SCORABLE])
    known = (measured, config) if score.survey is None else (measured, config, surveyed)
    value = np.array(score.compute(*known), dtype=np.float64)  # a copy: a score may return what it was given
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
            "base_loss": _loss(measured, "base", View.RESPONSE),
            "reference_loss": _loss(measured, "reference", View.RESPONSE),
            "frozen_chosen_loss": _loss(measured, "base", View.COMPLETION),
            "frozen_rejected_loss": _loss(measured, "base", View.REJECTED_COMPLETION),
            "num_tokens": pa.array(
                measured.num_tokens[View.RESPONSE], pa.int32(), mask=measured.num_tokens[View.RESPONSE] == 0
            ),
            "score": pa.array(value, pa.float64(), mask=np.isnan(value)),
            **_of_subtasks(measured, score, config, ~np.isnan(value)),
        }
    )


def _of_subtasks(
    measured: Measured, score: Score, config: ScoreConfig, known: NDArray[np.bool_]
) -> dict[str, pa.Array]:
    """Return the scores for each subtask of the target, of the rows that have a score."""
    parts = score.parts(measured, config) if score.parts is not None and measured.target is not None else {}
    return {
        subtask_column(name): pa.array(values, pa.float64(), mask=~known) for name, values in parts.items()
    }


def _loss(measured: Measured, model: str, view: View) -> pa.Array:
    """Return the loss of a view under a model; nulls where no kind that was asked for has it."""
    for need, columns in measured.columns.items():
        if (need.model, need.view) == (model, view) and "loss" in columns.column_names:
            return columns["loss"].combine_chunks()
    return pa.nulls(len(measured.example_id), pa.float64())


def _failed_examples(found: Measurements) -> dict[int, str]:
    """Name the examples that the engine failed on. What only an export asks for costs no example its rank."""
    reasons: dict[int, str] = {}
    exported = is_of_view(found.sequences, *COMPLETIONS)
    for asked, failed in found.failed.items():
        if failed:
            absent = found.columns[asked].column(0).is_null()
            rows = found.sequences.filter(pc.and_not(absent, exported))
            pairs = zip(rows["example"].to_pylist(), rows["sequence_id"].to_pylist(), strict=True)
            reasons |= {index: f"{asked[1]}: {failed[key]}" for index, key in pairs if key in failed}
    return reasons


def _why(score: Score, measured: Measured, index: int) -> str:
    """Say in words why a row has no score."""
    for need in (one for asked in score.needs for one in measured.series(asked)):
        if measured.num_tokens[need.view][index] == 0:
            return f"{score.name} needs the {need.view} view, which this row does not have"
        if not measured.columns[need].slice(index, 1).column(0)[0].is_valid:
            return f"there is no {need.kind} of the {need.view} under the {need.model}"
    setting = " (score.min_loss)" if "min_loss" in score.settings else ""
    return f"{score.name} ({score.formula}) has no finite value: {score.undefined}{setting}"
