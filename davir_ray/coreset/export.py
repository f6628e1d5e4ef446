"""A core-set's rows in every shape that is exported. Pure: chosen rows and their source rows in, content out."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.coreset.shapes import to_messages, to_trl
from davir_ray.corpus.example import Example

SCORE_COLUMN = "davir_score"
RANK_COLUMN = "davir_rank"
CHOSEN = pa.schema(
    [
        ("split", pa.int32()),
        ("row", pa.int64()),
        ("place", pa.int64()),  # position in the core-set, from 0
        (RANK_COLUMN, pa.int64()),
        (SCORE_COLUMN, pa.float64()),
        ("example_id", pa.binary(16)),
        ("base_loss", pa.float64()),
        ("rejected_base_loss", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Fetched:
    """Chosen rows (CHOSEN, and the JSON of shapes that are exported) beside their source rows, in one order."""

    chosen: pa.Table
    source: pa.Table

    def take(self, index: NDArray[np.integer[Any]]) -> "Fetched":
        """Return some of the rows."""
        return Fetched(self.chosen.take(pa.array(index)), self.source.take(pa.array(index)))


def messages_row(example: Example, chosen: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the `messages` export."""
    return to_messages(example) | {name: chosen[name] for name in (SCORE_COLUMN, RANK_COLUMN)}


def trl_row(example: Example, chosen: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the `trl` export; pairs carry DPO's frozen log-probabilities, measured under the base."""
    row = to_trl(example)
    if chosen["rejected_base_loss"] is not None:
        row["ref_chosen_logps"] = -chosen["base_loss"]
        row["ref_rejected_logps"] = -chosen["rejected_base_loss"]
    return row


SHAPES = {"messages": messages_row, "trl": trl_row}


def one_a_place(rows: Fetched) -> NDArray[np.integer[Any]]:
    """Order rows by place; of several source rows with the same content, take the one whose JSON sorts first."""
    place = rows.chosen["place"].to_numpy()
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    if len(starts) == len(order):
        return order
    groups = np.split(order, starts[1:])
    return np.array([min(group, key=lambda index: _json(rows.source, index)) for group in groups])


def _json(table: pa.Table, index: int) -> str:
    return json.dumps(table.slice(int(index), 1).to_pylist()[0], sort_keys=True, default=str)


def user_table(rows: Fetched) -> pa.Table:
    """Return the source rows, unchanged and in order of rank, with their score and rank behind."""
    table = rows.source
    for name in (SCORE_COLUMN, RANK_COLUMN):
        table = table.append_column(name, rows.chosen[name])
    return table


def parquet(rows: Fetched) -> tuple[str, pa.Table]:
    """Write the user's own columns as Parquet."""
    return "parquet", user_table(rows)


def jsonl(rows: Fetched) -> tuple[str, list[str]]:
    """Write the user's own columns as JSON lines."""
    return "jsonl", [json.dumps(row, ensure_ascii=False, default=str) for row in user_table(rows).to_pylist()]


def messages(rows: Fetched) -> tuple[str, list[str]]:
    """Write chat messages as JSON lines."""
    return "jsonl", _shaped(rows, "messages")


def trl(rows: Fetched) -> tuple[str, list[str]]:
    """Write TRL's prompt-completion or preference shape as JSON lines."""
    return "jsonl", _shaped(rows, "trl")


def _shaped(rows: Fetched, shape: str) -> list[str]:
    """Return the JSON of a shape; an empty core-set was never shaped."""
    return rows.chosen[shape].to_pylist() if len(rows.chosen) else []


def ids(rows: Fetched) -> tuple[str, list[str]]:
    """Write the example ids in hex, best first."""
    return "txt", [example_id.hex() for example_id in rows.chosen["example_id"].to_pylist()]


WRITERS = {"parquet": parquet, "jsonl": jsonl, "messages": messages, "trl": trl, "ids": ids}
