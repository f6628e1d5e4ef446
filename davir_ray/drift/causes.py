"""Why a row came into the core-set, or went out of it.

The first of these that holds is the cause:

    data      the row is new, or gone
    status    it had no score and has one, or the other way about
    model     base or reference changed, and so did what they say of this row
    measuring the engine or a tokens setting changed, and so did what is measured of this row
    rule      a selection rule or a setting of the score changed
    others    nothing changed for this row: others overtook it, or gave way

So where a model and a rule change in one night, a row that both could have moved counts for the model.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.ids import Keys, find, keys_of
from davir_ray.schema import ID, ROLES

LOSSES = ("base_loss", "reference_loss")
SIDE = pa.schema(
    [
        ("example_id", ID),
        ("rank", pa.int64()),
        ("selected", pa.bool_()),
        ("base_loss", pa.float64()),
        ("reference_loss", pa.float64()),
        ("score", pa.float64()),
    ]
)
Mask = NDArray[np.bool_]


class Cause(StrEnum):
    """Why a row came in or went out; see above."""

    DATA = "data"
    STATUS = "status"
    MODEL = "model"
    MEASURING = "measuring"
    RULE = "rule"
    OTHERS = "others"


CHANGES = {
    Cause.MODEL: frozenset({*ROLES, "target_rows"}),
    Cause.MEASURING: frozenset({"engine", "tokens"}),
    Cause.RULE: frozenset({"score", "select"}),
}
"""Which changes between two runs (`changes.Change.what`) make a cause possible."""


CAME = {
    "data": "new data",
    "status": "has a score now",
    "model": "new base or reference",
    "measuring": "new engine or tokens setting",
    "rule": "new rule or score setting",
    "others": "others gave way",
}
"""Cause of a row that came into the core-set, in words."""
WENT = CAME | {"data": "gone data", "status": "has no score now", "others": "displaced by others"}
"""The same of one that went out of it."""


@dataclass(frozen=True)
class Night:
    """The rows of one night beside the ids [N] of both, sorted. Where a row is not there: rank 0, losses, score NaN."""

    ids: Keys
    there: Mask
    rank: NDArray[np.int64]
    selected: Mask
    losses: NDArray[np.float64]  # [N, 2]
    score: NDArray[np.float64]


@dataclass(frozen=True)
class Moved:
    """What some rows did. `came` and `went` count rows by cause."""

    before: int
    after: int
    both: int
    selected_before: int
    selected_after: int
    selected_both: int
    came: Counter[Cause]
    went: Counter[Cause]

    def __add__(self, other: "Moved") -> "Moved":
        """Put other rows beside these."""
        return Moved(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})


def beside(before: pa.Table, after: pa.Table) -> tuple[Night, Night]:
    """Join two SIDE tables by row; of repeats, the one with a rank stands for all."""
    keys_before, keys_after = keys_of(before["example_id"]), keys_of(after["example_id"])
    ids = np.unique(np.concatenate([keys_before, keys_after]))
    return _night(before, keys_before, ids), _night(after, keys_after, ids)


def _night(table: pa.Table, keys: Keys, ids: Keys) -> Night:
    rank = table["rank"].fill_null(0).to_numpy()
    order = np.lexsort((rank == 0, keys))
    within, first = np.unique(keys[order], return_index=True)
    index = find(ids, within)
    there = index >= 0
    row = order[first][index] if len(order) else index  # of a row that is not there: any, and not used

    def column(name: str) -> NDArray[np.float64]:
        values = table[name].fill_null(np.nan).to_numpy()
        return np.where(there, values[row], np.nan) if len(values) else np.full(len(ids), np.nan)

    ranks, selected = np.zeros(len(ids), dtype=np.int64), np.zeros(len(ids), dtype=bool)
    ranks[there] = rank[row[there]]
    selected[there] = np.asarray(table["selected"])[row[there]]
    return Night(
        ids, there, ranks, selected, np.column_stack([column(name) for name in LOSSES]), column("score")
    )


def moved(before: Night, after: Night, changed: Collection[str]) -> Moved:
    """Count what came in and went out, by cause. changed: what differs between the runs of the two nights."""
    cause = causes(before, after, changed)
    return Moved(
        before=_count(before.there),
        after=_count(after.there),
        both=_count(before.there & after.there),
        selected_before=_count(before.selected),
        selected_after=_count(after.selected),
        selected_both=_count(before.selected & after.selected),
        came=Counter(cause[after.selected & ~before.selected].tolist()),
        went=Counter(cause[before.selected & ~after.selected].tolist()),
    )


def causes(before: Night, after: Night, changed: Collection[str]) -> NDArray[np.object_]:
    """Return the cause of each row [N] for which it came in or went out, if it did. changed: as `moved` has it."""
    possible = {cause for cause, what in CHANGES.items() if what & set(changed)}
    otherwise = np.full(len(before.there), True)
    other_numbers = measured_otherwise(before, after, same_score="score" not in changed)
    conditions = {
        Cause.DATA: ~(before.there & after.there),
        Cause.STATUS: (before.rank > 0) != (after.rank > 0),
        Cause.MODEL: other_numbers & (Cause.MODEL in possible),
        Cause.MEASURING: other_numbers & (Cause.MEASURING in possible),
        Cause.RULE: otherwise & (Cause.RULE in possible),
        Cause.OTHERS: otherwise,
    }
    cause = np.full(len(otherwise), Cause.OTHERS, dtype=object)
    for name, holds in reversed(conditions.items()):
        cause[holds] = name
    return cause


def measured_otherwise(before: Night, after: Night, *, same_score: bool) -> Mask:
    """Tell of which rows both nights have other losses; or another score, under one formula, from views not kept."""
    different: Mask = np.any(_differ(before.losses, after.losses), axis=1)
    if same_score:
        different |= _differ(before.score, after.score)
    return different


def _differ(one: NDArray[np.float64], other: NDArray[np.float64]) -> Mask:
    return np.asarray(~np.isnan(one) & ~np.isnan(other) & (one != other))


def _count(mask: Mask) -> int:
    return int(np.count_nonzero(mask))
