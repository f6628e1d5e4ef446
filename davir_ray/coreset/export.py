"""A core-set's rows in every shape that is exported. Pure: chosen rows and their source rows in, content out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.coreset.llama_factory import to_llama_factory
from davir_ray.coreset.shapes import to_messages, to_trl
from davir_ray.corpus.example import Example
from davir_ray.corpus.json_text import decoded, json_columns, losses, to_json
from davir_ray.corpus.split import place_text
from davir_ray.errors import RowError
from davir_ray.tokens.tool_calls import AS_GIVEN, CallForm

SCORE_COLUMN = "davir_score"
RANK_COLUMN = "davir_rank"
SIDE = (SCORE_COLUMN, RANK_COLUMN, "davir_example_id", "davir_source", "davir_file", "davir_row")
"""What stands behind the user's own columns, or in `scores` beside them: example_id in hex; row counts from 0."""

CHOSEN = pa.schema(
    [
        ("split", pa.int32()),
        ("row", pa.int64()),
        ("place", pa.int64()),  # position in its folder of the core-set, from 0
        (RANK_COLUMN, pa.int64()),
        (SCORE_COLUMN, pa.float64()),
        ("example_id", pa.binary(16)),
        ("id", pa.string()),
        ("source", pa.string()),
        ("frozen_chosen_loss", pa.float64()),
        ("frozen_rejected_loss", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Fetched:
    """Chosen rows (CHOSEN with SIDE, and the lines of formats that are exported) beside their source rows."""

    chosen: pa.Table
    source: pa.Table

    def take(self, index: NDArray[np.integer[Any]]) -> "Fetched":
        """Return some of the rows."""
        return Fetched(self.chosen.take(pa.array(index)), self.source.take(pa.array(index)))


@dataclass(frozen=True)
class CoresetFiles:
    """The files of a core-set. folders: one a source, or `""` for all rows; rows: how many each has."""

    folders: tuple[str, ...]
    rows: tuple[int, ...]
    rows_per_file: int

    @property
    def files(self) -> tuple[int, ...]:
        """How many files each folder has: at least one."""
        return tuple(max(1, -(-rows // self.rows_per_file)) for rows in self.rows)

    def file_of(self, folder: int, place: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number the file of each place of a folder [N], counted over all folders."""
        return place // self.rows_per_file + sum(self.files[:folder])


def folder_name(source: str) -> str:
    """Return a source's name as the name of a folder, whatever is in it; readers pass over `_x` and `.x`."""
    name = quote(source, safe=" ,+@()[]")
    return f"%{ord(name[0]):02X}{name[1:]}" if name[:1] in ("_", ".") else name


def places_within(folder: NDArray[np.integer[Any]], before: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number rows within their folders [N], in order. before: how many of each folder came earlier."""
    places = np.empty(len(folder), dtype=np.int64)
    for index in np.unique(folder):
        mine = np.flatnonzero(folder == index)
        places[mine] = before[index] + np.arange(len(mine))
    return places


def files_column(split: NDArray[np.int32], paths: Sequence[str]) -> pa.DictionaryArray:
    """Name the file of each row [N] by its split; how files are cut into splits does not show. paths: of each split."""
    used, index = np.unique(split, return_inverse=True)
    files = pa.array([paths[one] for one in used], pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(files.indices.take(pa.array(index)), files.dictionary)


def with_side(chosen: pa.Table, file: str) -> pa.Table:
    """Add the rest of SIDE to chosen rows of one file."""
    hexed = [example_id.hex() for example_id in chosen["example_id"].to_pylist()]
    columns = {
        "davir_example_id": pa.array(hexed, pa.string()),
        "davir_source": chosen["source"],
        "davir_file": pa.array([file] * len(chosen), pa.string()),
        "davir_row": chosen["row"],
    }
    for name, column in columns.items():
        chosen = chosen.append_column(name, column)
    return chosen


@dataclass(frozen=True)
class Template:
    """What the model's chat template gets. kwargs: `tokens.chat_template_kwargs`. call_forms: see `Tokenizer`."""

    kwargs: dict[str, Any]
    call_forms: tuple[CallForm, CallForm] = (AS_GIVEN, AS_GIVEN)


def messages_row(example: Example, chosen: dict[str, Any], template: Template) -> dict[str, Any] | None:
    """Return a row of the `messages` export."""
    return to_messages(example) | {name: chosen[name] for name in (SCORE_COLUMN, RANK_COLUMN)}


def trl_row(example: Example, chosen: dict[str, Any], template: Template) -> dict[str, Any] | None:
    """Return a row of the `trl` export: what stock trainers read, and nothing else; None where nothing is trained on.

    They pass the column `chat_template_kwargs` to the template. As in measuring, what the row says goes before the
    recipe.
    """
    try:
        row = to_trl(example, template.call_forms[bool(example.tools)])
    except RowError:  # of a rejected side that no score looked at
        return None
    if row is None or "prompt" not in row:
        return row
    kwargs = template.kwargs | (example.chat_template_kwargs or {})
    return row | ({"chat_template_kwargs": kwargs} if kwargs else {})


def trl_frozen_row(example: Example, chosen: dict[str, Any], template: Template) -> dict[str, Any] | None:
    """Return a pair with DPO's frozen log-probabilities of the exported completions; None where there are none."""
    if chosen["frozen_chosen_loss"] is None or chosen["frozen_rejected_loss"] is None:
        return None
    frozen = {f"ref_{side}_logps": -chosen[f"frozen_{side}_loss"] for side in ("chosen", "rejected")}
    row = trl_row(example, chosen, template)
    return None if row is None else row | frozen


def trl_reward_row(example: Example, chosen: dict[str, Any], template: Template) -> dict[str, Any] | None:
    """Return a pair with the margin that TRL's RewardTrainer subtracts, which is the row's score; None for no pair."""
    row = trl_row(example, chosen, template)
    return None if row is None or "rejected" not in row else row | {"margin": chosen[SCORE_COLUMN]}


def llama_factory_row(example: Example, chosen: dict[str, Any], template: Template) -> dict[str, Any] | None:
    """Return a row for LLaMA-Factory; None where it has no place for one, or it is no pair and those beside it are."""
    row = None if (example.rejected is not None) != chosen["pairs"] else to_llama_factory(example)
    return None if row is None else row | {name: chosen[name] for name in (SCORE_COLUMN, RANK_COLUMN)}


SHAPES = {
    "messages": messages_row,
    "trl": trl_row,
    "trl_frozen": trl_frozen_row,
    "trl_reward": trl_reward_row,
    "llama_factory": llama_factory_row,
}


def shaped(example: Example, chosen: dict[str, Any], shape: str, template: Template) -> str | None:
    """Return the line of a row in an export shape; None where the shape leaves it out.

    chosen: a row of CHOSEN, and `pairs`: whether its source is one of preference pairs.
    """
    row = SHAPES[shape](example, chosen, template)
    return None if row is None else to_json(row)


def json_lines(source: pa.Table) -> tuple[list[str], list[str]]:
    """Return rows of Parquet as lines of JSON, and what JSON could not hold, by column."""
    texts = json_columns(source.schema)
    records = [decoded(record, texts) for record in source.to_pylist()]
    lost = {
        f"column `{name}` has {what}"
        for record in records
        for name, value in record.items()
        for what in losses(value)
    }
    return [to_json(record) for record in records], sorted(lost)


def user_table(rows: Fetched) -> pa.Table:
    """Return the source rows, unchanged and in order of rank, with their SIDE behind."""
    table = rows.source
    for name in SIDE:
        table = table.append_column(name, rows.chosen[name])
    return table


def parquet(rows: Fetched) -> tuple[str, pa.Table]:
    """Write the user's own columns as Parquet."""
    return "parquet", user_table(rows)


def lines_of(rows: Fetched, name: str) -> tuple[str, list[str]]:
    """Write the lines that rows were given when they were fetched; a row may have none."""
    return "jsonl", rows.chosen[name].drop_null().to_pylist()


def scores(rows: Fetched) -> tuple[str, list[str]]:
    """Write the SIDE of each row: line n belongs to line n of `jsonl`."""
    return "jsonl", [to_json(row) for row in rows.chosen.select(SIDE).to_pylist()]


def ids(rows: Fetched) -> tuple[str, list[str]]:
    """Write the user's id of each row, or file and row where it has none, and its example id in hex."""
    named = rows.chosen.select(["id", "davir_file", "davir_row", "davir_example_id"]).to_pylist()
    return "tsv", [f"{_own_name(row)}\t{row['davir_example_id']}" for row in named]


def id_scores(rows: Fetched) -> tuple[str, list[str]]:
    """Write an object a row: the user's id, or without one the position in its file, and the scores beside it."""
    named = rows.chosen.select(["id", *SIDE]).to_pylist()
    return "jsonl", [
        to_json(row | {"id": row["davir_row"] if row["id"] is None else row["id"]}) for row in named
    ]


def _own_name(row: dict[str, Any]) -> str:
    name = row["id"] or place_text(row["davir_file"], row["davir_row"])
    return name if name.isprintable() else json.dumps(name, ensure_ascii=False)[1:-1]


def content(rows: Fetched, name: str) -> tuple[str, pa.Table | list[str]]:
    """Return the suffix and the content of a file in one format."""
    made = {"parquet": parquet, "scores": scores, "ids": ids, "id_scores": id_scores}.get(name)
    return made(rows) if made else lines_of(rows, name)
