"""The Ray stage that writes the rows to train on: one part a split, under the run's folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from davir_ray import storage
from davir_ray.ids import keys_of
from davir_ray.runs.record import Overlaps
from davir_ray.storage.layout import numbered
from davir_ray.store.prepared import Prepared
from davir_ray.train.pick import Pick
from davir_ray.train.rows import TRAINING, order, training_rows


@dataclass(frozen=True)
class RowsWritten:
    """What was written. rows: distinct ones; left_out: picked ones that lack what training needs.

    overlaps: which of them are rows of the target too, where that was looked for.
    """

    rows: int
    left_out: int
    largest_id: int
    overlaps: Overlaps | None = None


def write_rows(
    prepared: Prepared, pick: Pick, found: Sequence[Any] | None, folder: str, *, pairs: bool
) -> RowsWritten:
    """Write the picked rows of every split.

    found: for each split a reference to its FOUND table under the frozen policy.
    """
    task, shared = ray.remote(write_split), ray.put(pick)
    refs = [
        task.remote(prepared, split, shared, found[split] if found else None, folder, pairs)
        for split in range(prepared.splits)
    ]
    done = ray.get(refs)
    left_out = sum(missing for missing, _ in done)
    return RowsWritten(count_rows(folder), left_out, max((largest for _, largest in done), default=-1))


def write_split(
    prepared: Prepared, split: int, pick: Pick, found: pa.Table | None, folder: str, pairs: bool
) -> tuple[int, int]:
    """Write the picked rows of one split; return how many were left out, and their largest id (-1: no rows)."""
    tokens = prepared.tokens(split)
    losses = None
    if found is not None:
        losses = np.full(len(tokens), np.nan)
        losses[found["position"].to_numpy()] = found["loss"].to_numpy()
    examples = prepared.examples(split)
    table = training_rows(examples, tokens, pick, losses, pairs)
    left_out = int((pick.ranks(keys_of(examples["example_id"])) >= 0).sum()) - len(table)
    if len(table) == 0:
        return left_out, -1
    storage.write_table(numbered(folder, split), table)
    columns = [table["input_ids"], *([table["rejected_input_ids"]] if pairs else [])]
    return left_out, int(max(pc.max(pc.list_flatten(column)).as_py() for column in columns))


def count_shared(folder: str, other: str) -> int:
    """Count the examples that are under both folders."""
    mine, theirs = (keys_of(_index(one)["example_id"]) for one in (folder, other))
    return len(np.intersect1d(mine, theirs))


def count_rows(folder: str) -> int:
    """Count the distinct rows under a folder."""
    table = _index(folder)
    return len(order(keys_of(table["example_id"]), table["rank"].to_numpy()))


def _index(folder: str) -> pa.Table:
    """Read which examples are under a folder."""
    columns = ["example_id", "rank"]
    parts = [storage.read_table(uri, columns) for uri in storage.list_files(folder, ".parquet")]
    return pa.concat_tables(parts or [TRAINING.empty_table().select(columns)])
