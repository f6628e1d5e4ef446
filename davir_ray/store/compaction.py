"""Merge the small parts of a model into large ones, while runs read and write.

A merged part is written whole, with the names of all parts that went into it, before those are deleted. So at every
moment each measurement can be listed, a reader that comes too late for a part finds it by its name
(`MeasurementStore.read`), and a run that resumes still knows its chunks (`MeasurementStore.chunks_done`). A
compaction that is stopped leaves measurements twice, equal, and the next one finishes its work. Two at once do no
harm.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from davir_ray import storage
from davir_ray.errors import DamagedPart, StoreError
from davir_ray.storage.damage import set_aside
from davir_ray.storage.files import File
from davir_ray.store.measurements import MeasurementStore, bundles, distinct, merged_names
from davir_ray.store.verify import contradicting

MERGED_ROWS = 2_000_000
MERGED_BYTES = 128 * 2**20
"""The rows of a merged part at most, about 50 MB of losses, and the bytes of its parts: what a compaction holds in
memory a few times over."""

SMALL_BYTES = MERGED_ROWS // 2 * 24
"""Parts of fewer bytes are merged: an id and a loss are 24 bytes that do not compress."""

Part = tuple[File, pa.Table]


@dataclass(frozen=True)
class Compaction:
    """What a compaction did: how many parts it merged into how many, and the sequences in those."""

    merged: int = 0
    made: int = 0
    sequences: int = 0


def compact(model: MeasurementStore) -> Compaction:
    """Merge the small parts of a model; what is damaged is set aside. Raises `StoreError` if two are at odds."""
    merged = made = sequences = 0
    for parts in _groups(model, [file for file in model.parts() if file.size < SMALL_BYTES]):
        sequences += _merge(model, parts)
        merged, made = merged + len(parts), made + 1
    return Compaction(merged, made, sequences)


def _groups(model: MeasurementStore, files: Sequence[File]) -> Iterator[list[Part]]:
    """Read parts into groups of two or more that together are no larger than a merged part may be."""
    group: list[Part] = []
    rows = size = 0
    for file, table in _read(model, files):
        if rows + len(table) > MERGED_ROWS or size + file.size > MERGED_BYTES:
            if len(group) > 1:
                yield group
            group, rows, size = [], 0, 0
        group.append((file, table))
        rows, size = rows + len(table), size + file.size
    if len(group) > 1:
        yield group


def _read(model: MeasurementStore, files: Sequence[File]) -> Iterator[Part]:
    for bundle in bundles(files):
        tables = storage.concurrently(partial(_part_or_none, model), bundle)
        yield from ((file, table) for file, table in zip(bundle, tables, strict=True) if table is not None)


def _part_or_none(model: MeasurementStore, file: File) -> pa.Table | None:
    """Read a part; None if another compaction has taken it, or if it was damaged."""
    try:
        return model.read_part(file.uri)
    except FileNotFoundError:
        return None
    except DamagedPart as damage:
        set_aside(damage)
        return None


def _merge(model: MeasurementStore, parts: Sequence[Part]) -> int:
    tables = [table.replace_schema_metadata() for _, table in parts]
    if contradicting(model.kind, tables):
        raise StoreError(f"{model.folder}: parts contradict each other; `davir store verify` names them")
    names = {name for file, table in parts for name in (file.stem, *merged_names(table.schema.metadata))}
    whole = distinct(pa.concat_tables(tables))
    made = model.write_merged(whole, names)
    # Whoever misses a part looks for it in this listing.
    storage.await_listing(lambda: made in {file.uri for file in model.merged_parts()}, made)
    # A merged part whose sequences are all that there are keeps its name, and has been replaced by its successor.
    storage.concurrently(storage.delete, [file.uri for file, _ in parts if file.uri != made])
    return len(whole)
