"""Check that a store holds what it says: every part readable, true to its name, and at one with the others."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from davir_ray import storage
from davir_ray.errors import DamagedPart
from davir_ray.ids import keys_of, partition_of
from davir_ray.storage.files import File
from davir_ray.storage.layout import MeasurementsLayout, PreparedLayout
from davir_ray.storage.sealed import read_object
from davir_ray.store.measurements import MeasurementStore, StoredKind, bundles
from davir_ray.store.prepared import SCHEMAS, Prepared

CONTRADICTS = "another part says otherwise of one of its sequences, by more than batches round differently"

ROWS_AT_ONCE = 8_000_000
BYTES_AT_ONCE = 512 * 2**20
"""Measurements, and bytes of parts, that are compared with each other at once; a larger store is read several times."""


def verify(model: MeasurementStore) -> Iterator[DamagedPart]:
    """Open all files of a model, and yield those that are damaged; a part that goes meanwhile is passed over."""
    try:
        read_object(MeasurementsLayout(model.folder).description)
    except DamagedPart as damage:
        yield damage
    except FileNotFoundError:
        pass
    damaged = {one.uri: one for one in damaged_parts(model)}
    yield from damaged.values()
    sound = [file for file in model.parts() if file.uri not in damaged]
    yield from (DamagedPart(file.uri, CONTRADICTS) for file in _contradicting_parts(model, sound))


def damaged_parts(model: MeasurementStore) -> Iterator[DamagedPart]:
    """Open every part of a model, and yield those that cannot be read, or are not what they should be."""
    yield from _found(model.read_part, model.parts())
    yield from _found(model.read_failed, model.failed_parts())


def verify_prepared(folder: str) -> Iterator[DamagedPart]:
    """Open every part of a prepared corpus, and yield those that are damaged; the next run prepares their splits again.

    A part whose sibling is gone is no damage: its split is not done.
    """
    for table in SCHEMAS:
        files = storage.files_in(PreparedLayout(folder).table(table), ".parquet")
        yield from _found(partial(_read_prepared, folder, table), files)


def _read_prepared(folder: str, table: str, uri: str) -> pa.Table:
    one = Prepared(folder, (uri.rsplit("/", 1)[-1].removesuffix(".parquet"),))
    return one.examples(0) if table == "examples" else one.tokens(0)


def _found(read: Callable[[str], pa.Table], files: Sequence[File]) -> Iterator[DamagedPart]:
    """Read files, many at once, and yield those that are damaged."""
    for bundle in bundles(files):
        found = storage.concurrently(partial(_damage, read), bundle)
        yield from (damage for damage in found if damage is not None)


def _damage(read: Callable[[str], pa.Table], file: File) -> DamagedPart | None:
    """Tell what is wrong with a part; nothing, if it went meanwhile."""
    try:
        read(file.uri)
    except FileNotFoundError:
        return None
    except DamagedPart as damage:
        return damage if storage.exists(file.uri) else None
    return None


def contradicting(kind: StoredKind, tables: Sequence[pa.Table]) -> list[int]:
    """Tell which tables have a measurement that another, or another row, contradicts."""
    whole = pa.concat_tables(tables)
    keys = keys_of(whole["sequence_id"])
    order = np.lexsort((whole.column(1).to_numpy(), keys))
    same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    one, other = order[same], order[same + 1]
    apart = kind.contradicts(whole.take(pa.array(one)), whole.take(pa.array(other)))
    owner = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    return [int(number) for number in np.unique(owner[np.concatenate([one[apart], other[apart]])])]


def _contradicting_parts(model: MeasurementStore, files: Sequence[File]) -> list[File]:
    rows, size = sum(storage.concurrently(_count, files)), sum(file.size for file in files)
    passes = max(-(-rows // ROWS_AT_ONCE), -(-size // BYTES_AT_ONCE))
    blamed = set[int]()
    for number in range(passes):
        share = partial(_share, model, number, passes)
        blamed.update(
            contradicting(
                model.kind, [one for some in bundles(files) for one in storage.concurrently(share, some)]
            )
        )
    return [files[index] for index in sorted(blamed)]


def _count(file: File) -> int:
    try:
        return storage.read_footer(file.uri)[0]
    except FileNotFoundError:
        return 0


def _share(model: MeasurementStore, number: int, passes: int, file: File) -> pa.Table:
    """Read those measurements of a part that are compared in one of the passes."""
    try:
        table = model.read_part(file.uri).replace_schema_metadata()
    except FileNotFoundError:
        return model.kind.columns.empty_table()
    return table.filter(pa.array(partition_of(keys_of(table["sequence_id"]), passes) == number))
