"""Examples and their tokens -> the rows that a trainer reads. Pure: tables in, table out.

A row has the ids that were measured, and labels that are -100 wherever a token does not count, so that training sees
exactly what measuring saw.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.ids import keys_of
from davir_ray.schema import ID, IGNORED, View, is_of_view
from davir_ray.train.pick import Pick

TOKEN_LIST = pa.list_(pa.int32())
TRAINING = pa.schema(
    [
        pa.field("example_id", ID, nullable=False),
        pa.field("rank", pa.int64(), nullable=False),  # order of training before shuffling
        pa.field("input_ids", TOKEN_LIST, nullable=False),
        pa.field("labels", TOKEN_LIST, nullable=False),
        pa.field("rejected_input_ids", TOKEN_LIST),  # pairs only, as all below
        pa.field("rejected_labels", TOKEN_LIST),
        pa.field("ref_chosen_logps", pa.float64()),  # frozen, in nats, summed over the tokens that count
        pa.field("ref_rejected_logps", pa.float64()),
    ]
)


def training_rows(
    examples: pa.Table, tokens: pa.Table, pick: Pick, losses: NDArray[np.float64] | None, pairs: bool
) -> pa.Table:
    """Return the picked examples of a split as TRAINING.

    examples, tokens: its EXAMPLES and TOKENS. losses: summed nats under the frozen policy by position in `tokens`,
    NaN where there is none; None leaves the frozen columns empty. With `pairs` an example needs both sides (and, with
    `losses`, both measured); one that lacks a side is left out.
    """
    ranks = pick.ranks(keys_of(examples["example_id"]))
    chosen = _positions(tokens, View.RESPONSE, len(examples))
    wanted = (ranks >= 0) & (chosen >= 0)
    columns: dict[str, Any] = {}
    if pairs:
        rejected = _positions(tokens, View.REJECTED, len(examples))
        wanted &= rejected >= 0
        if losses is not None:
            measured = np.append(np.isfinite(losses), False)  # the last is what position -1 finds
            wanted &= measured[chosen] & measured[rejected]
            columns["ref_chosen_logps"] = pa.array(-losses[chosen[wanted]])
            columns["ref_rejected_logps"] = pa.array(-losses[rejected[wanted]])
        columns["rejected_input_ids"], columns["rejected_labels"] = _sequences(tokens, rejected[wanted])
    columns["input_ids"], columns["labels"] = _sequences(tokens, chosen[wanted])
    columns["example_id"] = examples["example_id"].filter(pa.array(wanted))
    columns["rank"] = pa.array(ranks[wanted])
    rows = int(wanted.sum())
    return pa.table(
        [columns.get(field.name, pa.nulls(rows, field.type)) for field in TRAINING], schema=TRAINING
    )


def _positions(tokens: pa.Table, view: View, examples: int) -> NDArray[np.int64]:
    """Return the position in `tokens` of each example's sequence; -1 where it has none."""
    of_view = np.flatnonzero(is_of_view(tokens, view).to_numpy())
    positions = np.full(examples, -1, dtype=np.int64)
    positions[tokens["example"].to_numpy()[of_view]] = of_view
    return positions


def _sequences(tokens: pa.Table, positions: NDArray[np.int64]) -> tuple[pa.Array, pa.Array]:
    """Return the ids of some sequences, and their labels."""
    table = tokens.select(["ids", "scored"]).take(pa.array(positions)).combine_chunks()
    ids, scored = (_whole(table[name]) for name in ("ids", "scored"))
    values = np.asarray(ids.flatten())
    labels = np.where(scored.flatten().to_numpy(zero_copy_only=False), values, IGNORED).astype(np.int32)
    return ids, pa.ListArray.from_arrays(ids.offsets, pa.array(labels))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def order(example_ids: NDArray[np.bytes_], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of distinct examples by rank, then by id: the order of files never shows."""
    by_id = np.argsort(example_ids, kind="stable")
    by_rank = by_id[np.argsort(rank[by_id], kind="stable")]
    ids = example_ids[by_rank]
    distinct: NDArray[np.int64] = by_rank[np.append(True, ids[1:] != ids[:-1])[: len(ids)]]
    return distinct
