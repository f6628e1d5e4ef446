"""Measurements on disk: immutable parts under the fingerprint of a model and its numerics.

    <store>/measurements/<fingerprint>/model.json          what the fingerprint stands for
    <store>/measurements/<fingerprint>/<part>.parquet      schema.MEASUREMENTS
    <store>/measurements/<fingerprint>/failed/*.parquet    FAILED: sequences that the engine cannot measure

A part is written whole or not at all, and is named by the sequences it holds. So a part that can be listed is
true, two runs may write at once, and there is nothing to lock or to repair.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray import storage
from davir_ray.errors import StoreError
from davir_ray.schema import ID, MEASUREMENTS
from davir_ray.store.keys import Keys, column_of, keys_of

FAILED = pa.schema([("sequence_id", ID), ("reason", pa.string())])


def fingerprint(identity: str, numerics: Mapping[str, Any]) -> str:
    """Name what decides a measurement besides the token ids: the model's content and how it is computed."""
    text = json.dumps([identity, numerics], sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def part_name(sequence_ids: Keys) -> str:
    """Name a part by the sequences that it holds: equal names hold equal sequences."""
    return blake2b(np.ascontiguousarray(sequence_ids).tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class MeasurementStore:
    """The measurements of one model under one numerics. `folder` is `<store>/measurements/<fingerprint>`."""

    folder: str

    def describe(self, description: Mapping[str, Any]) -> None:
        """Write what the fingerprint stands for, for people."""
        uri = storage.join(self.folder, "model.json")
        if not storage.exists(uri):
            storage.write_atomic(uri, json.dumps(description, indent=2, sort_keys=True).encode())

    def parts(self) -> list[str]:
        """List the parts that are complete."""
        return storage.list_files(self.folder, ".parquet")

    def part_names(self) -> frozenset[str]:
        """List the names of the parts that are complete."""
        return frozenset(uri.rsplit("/", 1)[-1].removesuffix(".parquet") for uri in self.parts())

    def write(self, sequence_ids: Keys, loss: NDArray[np.float64], num_tokens: NDArray[np.int32]) -> None:
        """Add one part. loss: nats summed over the scored tokens [N]; num_tokens: how many those are [N]."""
        columns = [column_of(sequence_ids), pa.array(loss), pa.array(num_tokens)]
        table = pa.Table.from_arrays(columns, schema=MEASUREMENTS)
        storage.write_table(storage.join(self.folder, f"{part_name(sequence_ids)}.parquet"), table)

    def write_failed(self, name: str, failed: Mapping[bytes, str]) -> None:
        """Settle the chunk that would have become part `name`: these sequences of it cannot be measured.

        They are not tried again, since they may have killed engines; deleting the folder `failed` forgets them.
        """
        columns = [pa.array(failed.keys(), ID), pa.array(failed.values(), pa.string())]
        table = pa.Table.from_arrays(columns, schema=FAILED)
        storage.write_table(storage.join(self.folder, "failed", f"{name}.parquet"), table)

    def failed(self) -> dict[bytes, str]:
        """Return the sequences that cannot be measured, with the reason."""
        rows = [row for uri in self._failed_uris() for row in storage.read_table(uri).to_pylist()]
        return {row["sequence_id"]: row["reason"] for row in rows}

    def settled(self) -> frozenset[str]:
        """Name the chunks that are measured, or whose failures are written down."""
        failed = (uri.rsplit("/", 1)[-1].removesuffix(".parquet") for uri in self._failed_uris())
        return self.part_names() | frozenset(failed)

    def _failed_uris(self) -> list[str]:
        return storage.list_files(storage.join(self.folder, "failed"), ".parquet")


def read_part(uri: str) -> pa.Table:
    """Read one part of a store. Raises `StoreError` if it is not what it should be."""
    try:
        table = storage.read_table(uri)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{uri}: not a readable measurement part: {error}") from error
    if not table.schema.equals(MEASUREMENTS):
        raise StoreError(f"{uri}: expected the columns {MEASUREMENTS.names}, found {table.schema.names}")
    return table


def read_parts(uris: list[str]) -> pa.Table:
    """Read some parts of a store into one table; a part that was removed meanwhile is left out."""
    return pa.concat_tables(
        [read_part(uri) for uri in uris if storage.exists(uri)] or [MEASUREMENTS.empty_table()]
    )


def sorted_losses(table: pa.Table) -> tuple[Keys, NDArray[np.float64]]:
    """Return the distinct sequence ids of a table, sorted, with their losses; equal ids carry equal losses."""
    keys, index = np.unique(keys_of(table["sequence_id"]), return_index=True)
    return keys, table["loss"].to_numpy()[index]
