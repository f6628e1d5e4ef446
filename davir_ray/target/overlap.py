"""Rows of a corpus that are rows of the target too, or nearly: a model that trains on them has seen what is asked.

The same row has the same content, or the same tokens of which the same count. Nearly the same are rows whose response
views are as like as rule `near_duplicates` calls alike: what a template puts into every row counts with the rest.

M rows of the target, N of a split, P values in a signature.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.coreset.rules.best import exact
from davir_ray.coreset.rules.near_duplicates import NearDuplicatesRule, Signature, signatures
from davir_ray.corpus.split import place_text
from davir_ray.ids import Keys, keys_of
from davir_ray.runs.record import Overlap, Overlaps
from davir_ray.schema import View, is_of_view
from davir_ray.target.rows import FewShotRow
from davir_ray.tokens.views import sequence_id

ALIKE = NearDuplicatesRule()
FIRST = 3
"""Rows of the corpus that are named for a row of the target; all are counted."""


@dataclass(frozen=True)
class Sought:
    """Rows of a target, as they are looked for. examples, sequences: `S16` [M]. signed: [M, P]."""

    places: tuple[str, ...]
    examples: Keys
    sequences: Keys
    signed: Signature

    @classmethod
    def of(cls, rows: Sequence[FewShotRow]) -> "Sought":
        """Look for these rows."""
        return cls(
            places=tuple(row.place for row in rows),
            examples=np.array([row.example_id for row in rows], dtype="S16"),
            sequences=np.array([sequence_id(row.chosen.ids, row.chosen.scored) for row in rows], dtype="S16"),
            signed=signatures([row.chosen.ids for row in rows], ALIKE),
        )


def overlaps_in(sought: Sought, path: str, examples: pa.Table, tokens: pa.Table) -> Overlaps:
    """Return what the rows of one split have of a target. examples, tokens: its parts; path: its file."""
    tokens = tokens.filter(is_of_view(tokens, View.RESPONSE))
    owner, place = tokens["example"].to_numpy(), examples["row"].to_numpy()
    keys, sequences = keys_of(examples["example_id"]), keys_of(tokens["sequence_id"])
    signed = signatures(_lists(tokens["ids"]), ALIKE)
    any_same, any_near = np.zeros(len(examples), dtype=bool), np.zeros(len(examples), dtype=bool)
    named: list[Overlap] = []
    for index, text in enumerate(sought.places):
        same, near = keys == sought.examples[index], np.zeros(len(examples), dtype=bool)
        same[owner[sequences == sought.sequences[index]]] = True
        near[owner[alike(signed, sought.signed[index])]] = True
        any_same, any_near = any_same | same, any_near | near
        first = np.flatnonzero(same | near)[:FIRST].tolist()
        named += [
            Overlap(target=text, corpus=place_text(path, place[one]), near=not same[one]) for one in first
        ]
    return Overlaps(named=tuple(named), same=int(any_same.sum()), near=int((any_near & ~any_same).sum()))


def alike(signed: Signature, other: Signature) -> NDArray[np.bool_]:
    """Tell which of the signatures [N, P] are estimated to be of rows that are similar enough to another [P]."""
    equal = (signed == other).sum(axis=1, dtype=np.int16)
    return np.asarray(equal >= ceil(exact(ALIKE.threshold) * ALIKE.num_perm))


def _lists(column: pa.ChunkedArray) -> list[NDArray[np.int32]]:
    lists = column.combine_chunks()
    values, ends = lists.flatten().to_numpy(), np.cumsum(lists.value_lengths().to_numpy())
    return np.split(values, ends[:-1]) if len(ends) else []


def together(parts: Iterable[Overlaps]) -> Overlaps:
    """Put together what the splits of a corpus have, in their order."""
    found = list(parts)
    return Overlaps(
        named=tuple(_first_of_each(one for part in found for one in part.named)),
        same=sum(part.same for part in found),
        near=sum(part.near for part in found),
    )


def _first_of_each(named: Iterable[Overlap]) -> Iterator[Overlap]:
    seen: dict[str, int] = {}
    for one in named:
        seen[one.target] = seen.get(one.target, 0) + 1
        if seen[one.target] <= FIRST:
            yield one
