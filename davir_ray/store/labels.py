"""What a part says of itself, in the metadata of its Parquet file: what it holds, and of what.

A part that was renamed, or that comes from another model, corpus or program, reads like any other. Its label does not.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from davir_ray.errors import DamagedPart
from davir_ray.ids import keys_of
from davir_ray.schema import ID

LABEL = b"davir_part"
Label = dict[str, str]


def labelled(table: pa.Table, **says: str) -> pa.Table:
    """Return a table that says these things of itself, beside what its metadata said before; with a seal on all."""
    metadata = dict(table.schema.metadata or {})
    label = {**says, "seal": _seal_of(metadata, says)}
    return table.replace_schema_metadata({**metadata, LABEL: json.dumps(label).encode()})


def check_label(uri: str, metadata: Mapping[bytes, bytes] | None, **expected: str) -> Label:
    """Return the label of a part. Raises `DamagedPart` if it, or the rest of the metadata, is not what is expected."""
    metadata = metadata or {}
    try:
        label = dict(json.loads(metadata[LABEL]))
        seal = label.pop("seal")
    except (KeyError, ValueError, TypeError) as error:
        raise DamagedPart(uri, f"does not say that it holds {expected['holds']} of davir") from error
    for name, value in expected.items():
        if label.get(name) != value:
            raise DamagedPart(uri, f"says {name}: {label.get(name)}, where {value} is expected")
    if seal != _seal_of(metadata, label):
        raise DamagedPart(uri, "is not what was written: the seal of its metadata does not fit")
    return label


def _seal_of(metadata: Mapping[bytes, bytes], says: Mapping[str, str]) -> str:
    rest = {
        repr(key): repr(metadata[key]) for key in metadata if key != LABEL and not key.startswith(b"ARROW:")
    }
    return blake2b(json.dumps([rest, says], sort_keys=True).encode(), digest_size=8).hexdigest()


def check_schema(uri: str, found: pa.Schema, expected: pa.Schema) -> None:
    """Raise `DamagedPart` if a part has other columns than expected, or of other types."""
    if not found.equals(expected):
        raise DamagedPart(uri, f"expected the columns {_told(expected)}, found {_told(found)}")


def _told(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def digest_of(table: pa.Table, columns: Sequence[str]) -> str:
    """Name what columns hold: ids, numbers and text without nulls."""
    digest = blake2b(digest_size=16)
    for name in columns:
        for data in _data_of(table[name].combine_chunks()):
            digest.update(data)
    return digest.hexdigest()


def _data_of(column: Any) -> list[bytes]:
    if column.type == ID:
        return [keys_of(column).tobytes()]
    if column.type != pa.string():
        return [np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).tobytes()]
    if len(column) == 0:
        return []
    _, offsets, text = column.buffers()
    bounds = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    texts = [] if text is None else [memoryview(text)[bounds[0] : bounds[-1]]]
    return [np.diff(bounds).tobytes(), *map(bytes, texts)]
