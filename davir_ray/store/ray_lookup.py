"""Ask the store for the measurements of a tokenised corpus, and learn which are missing.

Two exchanges: the run's sequences and the store's parts meet in the partition of their sequence id; what was found
goes back to the split that asked. Time is linear in both, and no process holds more than one partition.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from davir_ray.ray_exchange import gather, partitions_for, regroup, scatter
from davir_ray.schema import ID, View
from davir_ray.storage import File
from davir_ray.store.keys import find, keys_of, partition_of, split_table
from davir_ray.store.measurements import MeasurementStore, bundles, sorted_losses
from davir_ray.tokens.folds import Fold
from davir_ray.tokens.prepared import Prepared

FOUND = pa.schema(
    [
        ("split", pa.int32()),
        ("position", pa.int32()),  # index into the TOKENS part of the split
        ("loss", pa.float64()),  # null where the store has none
        ("first", pa.bool_()),  # no earlier row of the corpus has the same sequence
    ]
)
ASKED = pa.schema([("split", pa.int32()), ("position", pa.int32()), ("sequence_id", ID)])


def look_up(
    prepared: Prepared,
    views: Sequence[View],
    store: MeasurementStore,
    sequences: int,
    fold: Fold | None = None,
) -> list[Any]:
    """Return a reference to a FOUND table for each split, in order of position; of one fold, if one is named.

    `sequences` is about how many the corpus has; it decides the number of partitions.
    """
    count = partitions_for(sequences)
    asked = [
        scatter(scatter_asked, count, prepared, split, views, fold, count) for split in range(prepared.splits)
    ]
    stored = [scatter(scatter_stored, count, store, parts, count) for parts in bundles(store.parts())]
    matched = regroup([*asked, *stored], match, prepared.splits, prepared.splits)
    return gather(matched, align)


def scatter_asked(
    prepared: Prepared, split: int, views: Sequence[View], fold: Fold | None, partitions: int
) -> list[pa.Table]:
    """Send each sequence of a split to the partition of its id."""
    table = prepared.sequences(split, views, fold)
    column = pa.array(np.full(len(table), split, dtype=np.int32))
    table = pa.table([column, table["position"], table["sequence_id"]], schema=ASKED)
    return split_table(table, partition_of(keys_of(table["sequence_id"]), partitions), partitions)


def scatter_stored(store: MeasurementStore, parts: list[File], partitions: int) -> list[pa.Table]:
    """Send each measurement of some parts to the partition of its id."""
    table = store.read(part.uri for part in parts).select(["sequence_id", "loss"])
    return split_table(table, partition_of(keys_of(table["sequence_id"]), partitions), partitions)


def match(splits: int, *pieces: pa.Table) -> list[pa.Table]:
    """Give each asked sequence its loss, and send it back to its split."""
    asked = pa.concat_tables(piece for piece in pieces if "split" in piece.column_names)
    stored = [piece for piece in pieces if "split" not in piece.column_names]
    asked = asked.sort_by([("split", "ascending"), ("position", "ascending")])
    keys = keys_of(asked["sequence_id"])
    first = np.zeros(len(keys), dtype=bool)
    first[np.unique(keys, return_index=True)[1]] = True
    found = pa.table(
        [asked["split"], asked["position"], _losses(keys, stored), pa.array(first)], schema=FOUND
    )
    return split_table(found, asked["split"].to_numpy(), splits)


def _losses(keys: Any, stored: list[pa.Table]) -> pa.Array:
    if not stored:
        return pa.nulls(len(keys), pa.float64())
    within, losses = sorted_losses(pa.concat_tables(stored))
    index = find(keys, within)
    if len(within) == 0:
        return pa.nulls(len(keys), pa.float64())
    return pa.array(losses[index], mask=index < 0)


def align(*pieces: pa.Table) -> pa.Table:
    """Put what the partitions found for one split into the order of its TOKENS part."""
    return pa.concat_tables(pieces).sort_by("position").combine_chunks()
