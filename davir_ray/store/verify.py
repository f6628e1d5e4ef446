"""Check that a store holds what it says: every part readable, true to its name, and at one with the others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from davir_ray import storage
from davir_ray.errors import DamagedPart
from davir_ray.schema import EXAMPLES, MEASUREMENTS, TOKENS
from davir_ray.storage import File
from davir_ray.store.keys import keys_of, partition_of
from davir_ray.store.measurements import (
    MeasurementStore,
    bundles,
    part_name,
    read_checked,
    read_failed,
    read_part,
)

ROUNDING = 0.05
"""How far two losses of a sequence may be apart, in nats a token: two runs at once may measure it in different
batches, which round differently in bfloat16. Another model is further away."""

CONTRADICTS = f"another part has another loss for one of its sequences, by more than {ROUNDING} nats a token"

ROWS_AT_ONCE = 8_000_000
"""Measurements that are compared with each other at once; a larger store is read several times."""


@dataclass(frozen=True)
class Damage:
    """A part that is not what it should be. `reason` names it."""

    file: File
    reason: str


def verify(model: MeasurementStore) -> Iterator[Damage]:
    """Open every part of a model, and yield those that are damaged; a part that goes meanwhile is passed over."""
    sound, rows = [], 0
    for bundle in bundles(model.parts()):
        for file, found in zip(bundle, storage.concurrently(_rows_or_damage, bundle), strict=True):
            if isinstance(found, Damage):
                yield found
            else:
                sound.append(file)
                rows += found
    yield from (Damage(file, f"{file.uri}: {CONTRADICTS}") for file in _contradicting_parts(sound, rows))
    for file in model.failed_parts():
        try:
            read_failed(file.uri)
        except DamagedPart as error:
            yield Damage(file, str(error))


def verify_prepared(folder: str) -> Iterator[Damage]:
    """Open every part of a prepared corpus, and yield the EXAMPLES part of each split that is damaged.

    That part says that a split is done: without it the next run prepares the split again.
    """
    examples = storage.files_in(storage.join(folder, "examples"), ".parquet")
    tokens = storage.files_in(storage.join(folder, "tokens"), ".parquet")
    done = {file.stem: file for file in examples}
    for stem in sorted(done.keys() - {file.stem for file in tokens}):
        yield Damage(done[stem], f"{done[stem].uri}: its tokens are gone")
    for files, schema in ((examples, EXAMPLES), (tokens, TOKENS)):
        check = partial(_reason, schema)
        for bundle in bundles(files):
            found = zip(bundle, storage.concurrently(check, bundle), strict=True)
            yield from (Damage(done.get(file.stem, file), reason) for file, reason in found if reason)


def _reason(schema: pa.Schema, file: File) -> str:
    """Tell what is wrong with a prepared part; nothing, if it went meanwhile."""
    try:
        read_checked(file.uri, schema)
    except FileNotFoundError:
        return ""
    except DamagedPart as error:
        return str(error)
    return ""


def checked_part(file: File) -> pa.Table:
    """Read a part. Raises `DamagedPart` if it cannot be read or says what cannot be."""
    table = read_part(file.uri)
    if pc.all(pc.is_finite(table["loss"])).as_py() is False:
        raise DamagedPart(f"{file.uri}: a loss is not finite")
    if pc.all(pc.greater(table["num_tokens"], 0)).as_py() is False:
        raise DamagedPart(f"{file.uri}: a sequence has no tokens that count")
    if (name := part_name(keys_of(table["sequence_id"]))) != file.stem:
        raise DamagedPart(f"{file.uri}: holds other sequences than its name says: {name}")
    return table


def contradicting(tables: Sequence[pa.Table]) -> list[int]:
    """Tell which tables have a loss or a count of tokens that another, or another row, contradicts."""
    whole = pa.concat_tables(tables)
    keys, loss = keys_of(whole["sequence_id"]), whole["loss"].to_numpy()
    order = np.lexsort((loss, keys))
    keys, loss, tokens = keys[order], loss[order], whole["num_tokens"].to_numpy()[order]
    apart = (np.diff(loss) > ROUNDING * tokens[1:]) | (tokens[1:] != tokens[:-1])
    index = np.flatnonzero((keys[1:] == keys[:-1]) & apart)
    owner = np.repeat(np.arange(len(tables)), [len(table) for table in tables])[order]
    return [int(number) for number in np.unique(owner[np.concatenate([index, index + 1])])]


def _rows_or_damage(file: File) -> Damage | int:
    try:
        return len(checked_part(file))
    except FileNotFoundError:
        return 0
    except DamagedPart as error:
        return Damage(file, str(error))


def _contradicting_parts(files: Sequence[File], rows: int) -> list[File]:
    passes = -(-rows // ROWS_AT_ONCE)
    blamed = set[int]()
    for number in range(passes):
        share = partial(_share, number, passes)
        blamed.update(
            contradicting([one for some in bundles(files) for one in storage.concurrently(share, some)])
        )
    return [files[index] for index in sorted(blamed)]


def _share(number: int, passes: int, file: File) -> pa.Table:
    """Read those measurements of a part that are compared in one of the passes."""
    try:
        table = read_part(file.uri).replace_schema_metadata()
    except FileNotFoundError:
        return MEASUREMENTS.empty_table()
    return table.filter(pa.array(partition_of(keys_of(table["sequence_id"]), passes) == number))
