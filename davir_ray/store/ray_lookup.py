"""Ask the store for the measurements of a tokenised corpus, and learn which are missing.

Two exchanges: the run's sequences and the store's parts meet in the partition of their sequence id; what was found
goes back to the split that asked. Time is linear in both, and no process holds more than one partition.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from davir_ray.cluster.ray_exchange import (
    block_of,
    blocks_of,
    cut,
    partitions_for,
    regroup,
    scatter,
)
from davir_ray.corpus.folds import Fold
from davir_ray.ids import find, keys_of, partition_of, split_block, split_table
from davir_ray.schema import ID, View
from davir_ray.storage.files import File
from davir_ray.store.measurements import MeasurementStore, bundles, distinct
from davir_ray.store.prepared import Prepared

FOUND = pa.schema(
    [
        ("split", pa.int32()),
        ("position", pa.int32()),  # index into the TOKENS part of the split
        ("held", pa.bool_()),  # the store has a measurement of it
        ("first", pa.bool_()),  # no earlier row of the corpus has the same sequence
    ]
)
"""What is said of each sequence. The columns that were asked for follow, null where nothing is held."""
ASKED = pa.schema([("split", pa.int32()), ("position", pa.int32()), ("sequence_id", ID)])

AsRead = Callable[[pa.Table], pa.Table]
"""Makes fewer numbers of the columns of a kind, so that what is large stays where it is read."""

TOKEN_WIDTH = 8
"""How many narrow rows a row with values of its tokens is as wide as: 200 values take 800 bytes."""
VECTOR_WIDTH = 160
"""The same of a row with a hidden state: 4,096 values, as models of 8 billion parameters have, take 16 KB. A smaller
model's rows go through more partitions than they need, which costs little."""


def look_up(
    prepared: Prepared,
    views: Sequence[View],
    stores: Sequence[MeasurementStore],
    columns: pa.Schema,
    fold: Fold | None = None,
    as_read: AsRead | None = None,
) -> list[Any]:
    """Return a reference to a FOUND table for each split, in order of position; of one fold, if one is named.

    stores: those of one model whose kinds have the columns. columns: the first is the number by which measurements
    of a sequence are ordered. as_read: what a table of measurements becomes where it is read.
    All tables are there when it returns: what two look-ups exchange at once might not fit into the object store.
    """
    found = _exchanged(prepared, views, stores, columns, fold, as_read)
    ray.wait(found, num_returns=len(found), fetch_local=False)
    return found


def _exchanged(
    prepared: Prepared,
    views: Sequence[View],
    stores: Sequence[MeasurementStore],
    columns: pa.Schema,
    fold: Fold | None,
    as_read: AsRead | None,
) -> list[Any]:
    made = ray.put(as_read)
    sequences = [
        _width(columns) * count // (fold.folds if fold else 1) for count in prepared.count_sequences()
    ]
    count, blocks = partitions_for(sum(sequences)), blocks_of(sequences)
    asked = [scatter(scatter_asked, count, prepared, block, views, fold, count) for block in blocks]
    stored = [
        [
            scatter(scatter_stored, count, store, parts, columns.names, made, count)
            for parts in bundles(store.parts())
        ]
        for store in stores
    ]
    pieces = [*asked, *(one for some in stored for one in some)]
    counts = [len(asked), *map(len, stored)]
    return cut(regroup(pieces, match, len(blocks), blocks, columns, counts), by_split, blocks)


def _width(columns: pa.Schema) -> int:
    """Tell how many narrow rows a row with these columns is as wide as."""
    if "vector" in columns.names:
        return VECTOR_WIDTH
    return TOKEN_WIDTH if any(pa.types.is_list(field.type) for field in columns) else 1


def scatter_asked(
    prepared: Prepared, splits: range, views: Sequence[View], fold: Fold | None, partitions: int
) -> list[pa.Table]:
    """Send each sequence of some splits to the partition of its id."""
    table = pa.concat_tables([_asked(prepared, split, views, fold) for split in splits])
    return split_table(table, partition_of(keys_of(table["sequence_id"]), partitions), partitions)


def _asked(prepared: Prepared, split: int, views: Sequence[View], fold: Fold | None) -> pa.Table:
    table = prepared.sequences(split, views, fold)
    column = pa.array(np.full(len(table), split, dtype=np.int32))
    return pa.table([column, table["position"], table["sequence_id"]], schema=ASKED)


def scatter_stored(
    store: MeasurementStore, parts: list[File], columns: list[str], as_read: AsRead | None, partitions: int
) -> list[pa.Table]:
    """Send each measurement of some parts to the partition of its id. as_read: what they become before."""
    table = store.read(part.uri for part in parts)
    table = (as_read(table) if as_read is not None else table).select(["sequence_id", *columns])
    return split_table(table, partition_of(keys_of(table["sequence_id"]), partitions), partitions)


def match(
    blocks: Sequence[range], columns: pa.Schema, counts: Sequence[int], *pieces: pa.Table
) -> list[pa.Table]:
    """Give each asked sequence what is held of it, and send it back to the block of its split.

    counts: how many of the pieces are of what is asked, of the first store, of the second, ...
    """
    bounds = [0, *accumulate(counts)]
    asks, *stored = (pieces[start:stop] for start, stop in pairwise(bounds))
    asked = pa.concat_tables(asks)
    asked = asked.sort_by([("split", "ascending"), ("position", "ascending")])
    keys = keys_of(asked["sequence_id"])
    first = np.zeros(len(keys), dtype=bool)
    first[np.unique(keys, return_index=True)[1]] = True
    within = first_held(columns, stored)
    index = find(keys, keys_of(within["sequence_id"]))
    found = pa.table([asked["split"], asked["position"], index >= 0, first], schema=FOUND)
    held = within.select(columns.names).take(pa.array(index, mask=index < 0))
    for field in columns:
        found = found.append_column(field.with_nullable(True), held[field.name])
    return split_table(found, block_of(asked["split"].to_numpy(), blocks), len(blocks))


def first_held(columns: pa.Schema, stores: Iterable[Sequence[pa.Table]]) -> pa.Table:
    """Return the distinct sequences of some stores, sorted by id; one that several hold is as the first has it.

    So what is measured under another kind later does not change what a need was met with before.
    """
    held = pa.schema([("sequence_id", ID), *columns]).empty_table()
    for tables in stores:
        more = distinct(pa.concat_tables([held.slice(0, 0), *tables], promote_options="permissive"))
        new = find(keys_of(more["sequence_id"]), keys_of(held["sequence_id"])) < 0
        held = pa.concat_tables([held, more.filter(pa.array(new))], promote_options="permissive")
        held = held.take(pa.array(np.argsort(keys_of(held["sequence_id"]), kind="stable"))).combine_chunks()
    return held


def by_split(block: range, *pieces: pa.Table) -> list[pa.Table]:
    """Cut what the partitions found for a block into one table a split."""
    return split_block(align(*pieces), block)


def align(*pieces: pa.Table) -> pa.Table:
    """Put what was found into the order of the TOKENS parts."""
    order = [("split", "ascending"), ("position", "ascending")]
    return pa.concat_tables(pieces).sort_by(order).combine_chunks()
