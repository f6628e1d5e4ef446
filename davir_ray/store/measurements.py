"""Measurements on disk: immutable parts under the fingerprint of their kind, a model and its numerics.

    <store>/measurements/<fingerprint>/model.json               what the fingerprint stands for
    <store>/measurements/<fingerprint>/<part>.parquet           the columns of the kind
    <store>/measurements/<fingerprint>/merged/<part>.parquet    many parts in one (compaction.py), with their names
    <store>/measurements/<fingerprint>/failed/*.parquet         FAILED: sequences that the engine cannot measure

A part is written whole or not at all, is named by the sequences that it holds, and says under which fingerprint they
were measured; whoever reads it checks that. So two runs may write at once, and there is nothing to lock. A part that is
merged goes after the part that has taken it in has come; so whoever misses it finds it there, by its name.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray import storage
from davir_ray.errors import DamagedPart, EngineError
from davir_ray.ids import Keys, column_of, keys_of
from davir_ray.schema import ID
from davir_ray.storage.damage import set_aside
from davir_ray.storage.files import File
from davir_ray.storage.layout import MeasurementsLayout
from davir_ray.storage.sealed import read_object
from davir_ray.store.labels import check_label, check_schema, labelled

MERGED = b"davir_merged"
"""Where the metadata of a merged part names the parts that it took in."""

PARTS_AT_ONCE = 4096
BYTES_AT_ONCE = 64 * 2**20
"""What is read of a store at once, unless a single part is larger: of parts of 24 KB, as a GPU makes them, 64 MiB."""

FAILED = pa.schema([("sequence_id", ID), ("reason", pa.string())])


class StoredKind(Protocol):
    """What the store has to know of a kind of measurement (see measure/kind.py)."""

    @property
    def name(self) -> str:
        """The kind's name, which its parts carry."""
        ...

    @property
    def columns(self) -> pa.Schema:
        """The columns of a part: `sequence_id`, then a number, by which measurements of a sequence are ordered."""
        ...

    def flaws(self, measured: pa.Table) -> Mapping[int, str]:
        """Return row -> what no measurement of this kind has, in words that follow "gives" and "holds"."""
        ...

    def contradicts(self, one: pa.Table, other: pa.Table) -> NDArray[np.bool_]:
        """Tell where two measurements of a sequence cannot both be true: bool [N] of two tables of N rows."""
        ...


def fingerprint(kind: str, identity: str, numerics: Mapping[str, Any]) -> str:
    """Name what decides a measurement besides the token ids: its kind, the model's content, how it is computed."""
    text = json.dumps([kind, identity, numerics], sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def part_name(sequence_ids: Keys) -> str:
    """Name a part by the sequences that it holds: equal names hold equal sequences."""
    return blake2b(np.ascontiguousarray(sequence_ids).tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class MeasurementStore:
    """The measurements of one kind and model under one numerics. `folder` is `<store>/measurements/<fingerprint>`."""

    folder: str
    kind: StoredKind

    @property
    def fingerprint(self) -> str:
        """Name what all of its parts were measured with."""
        return self.folder.rstrip("/").rsplit("/", 1)[-1]

    @property
    def _paths(self) -> MeasurementsLayout:
        return MeasurementsLayout(self.folder)

    def describe(self, description: Mapping[str, Any]) -> None:
        """Write what the fingerprint stands for, for people, unless that is written there."""
        uri = self._paths.description
        try:
            found = read_object(uri)
            if all(found.get(name) == description[name] for name in ("kind", "model", "numerics")):
                return
            set_aside(DamagedPart(uri, f"describes another: {found.get('kind')} of {found.get('model')}"))
        except DamagedPart as damage:
            set_aside(damage)
        except FileNotFoundError:
            pass
        storage.write_atomic(uri, json.dumps(description, indent=2, sort_keys=True).encode())

    def parts(self) -> list[File]:
        """List the parts that are complete."""
        # In this order: what a compaction takes from the first folder is in the second by then.
        return [*storage.files_in(self.folder, ".parquet"), *self.merged_parts()]

    def merged_parts(self) -> list[File]:
        """List the parts that compactions made."""
        files = storage.files_in(self._paths.merged, ".parquet")
        # A listing may have passed a part before it went, and its successor's place before that came.
        while (again := storage.files_in(self._paths.merged, ".parquet")) != files:
            files = again
        return files

    def holds(self, name: str) -> bool:
        """Tell whether the part of this name is complete, unless it was merged already."""
        return storage.exists(self._paths.part(name))

    def part_names(self) -> frozenset[str]:
        """Name the parts that are complete, and those that were merged into them."""
        single = [file.stem for file in storage.files_in(self.folder, ".parquet")]
        return frozenset(single).union(*self.names_merged().values())

    def names_merged(self) -> dict[str, frozenset[str]]:
        """Tell for each merged part its own name and the names of all that went into it."""
        while True:
            files = self.merged_parts()
            try:
                footers = storage.concurrently(storage.read_footer, [file.uri for file in files])
            except FileNotFoundError:
                continue  # a compaction has merged one of these again: there is another list by now
            for file, (_, metadata) in zip(files, footers, strict=True):
                check_label(file.uri, metadata, holds="measurements", of=self.fingerprint)
            named = zip(files, footers, strict=True)
            return {file.uri: frozenset([file.stem, *merged_names(some)]) for file, (_, some) in named}

    def read(self, uris: Iterable[str]) -> pa.Table:
        """Read some parts into one table.

        A part that was merged meanwhile is read where it went; one that was removed is left out.
        """
        tables: list[pa.Table] = []
        pending, seen = list(uris), set[str]()
        while pending:
            read = storage.concurrently(self._read_if_there, pending)
            tables += [table for table in read if table is not None]
            away = [uri for uri, table in zip(pending, read, strict=True) if table is None]
            gone = {uri.rsplit("/", 1)[-1].removesuffix(".parquet") for uri in away}
            seen.update(pending)
            merged = self.names_merged() if gone else {}
            pending = [uri for uri, names in merged.items() if names & gone and uri not in seen]
        return pa.concat_tables(tables or [self.kind.columns.empty_table()])

    def write(self, sequence_ids: Keys, measured: pa.Table) -> None:
        """Add one part. measured: the kind's columns but for `sequence_id` [N].

        Raises `EngineError` for what no measurement has.
        """
        columns = [column_of(sequence_ids), *measured.select(self.kind.columns.names[1:]).columns]
        table = pa.Table.from_arrays(columns, schema=self.kind.columns)
        for reason in self.kind.flaws(table).values():
            raise EngineError(f"{self.folder}: the engine gives {reason}; nothing of that is kept")
        storage.write_table(self._paths.part(part_name(sequence_ids)), self._labelled(table, "measurements"))

    def _labelled(self, table: pa.Table, holds: str) -> pa.Table:
        return labelled(table, holds=holds, of=self.fingerprint, kind=self.kind.name)

    def write_merged(self, table: pa.Table, names: Iterable[str]) -> str:
        """Add one part that holds what the parts of these names do; return its URI."""
        metadata = {MERGED: " ".join(sorted(names)).encode()}
        uri = self._paths.merged_part(part_name(keys_of(table["sequence_id"])))
        storage.write_table(uri, self._labelled(table.replace_schema_metadata(metadata), "measurements"))
        return uri

    def write_failed(self, name: str, failed: Mapping[bytes, str]) -> None:
        """Settle the chunk that would have become part `name`: these sequences of it cannot be measured.

        They are not tried again, since they may have killed engines; deleting the folder `failed` forgets them.
        """
        columns = [pa.array(failed.keys(), ID), pa.array(failed.values(), pa.string())]
        table = pa.Table.from_arrays(columns, schema=FAILED)
        storage.write_table(self._paths.failed_part(name), self._labelled(table, "failed"))

    def failed(self) -> dict[bytes, str]:
        """Return the sequences that cannot be measured, with the reason."""
        rows = [row for file in self.failed_parts() for row in self.read_failed(file.uri).to_pylist()]
        return {row["sequence_id"]: row["reason"] for row in rows}

    def chunks_done(self) -> frozenset[str]:
        """Name the chunks that are measured, or whose failures are written down."""
        return self.part_names().union(file.stem for file in self.failed_parts())

    def read_part(self, uri: str) -> pa.Table:
        """Read one part. Raises `DamagedPart` if it is not what it should be."""
        table = self._read(uri, self.kind.columns, "measurements")
        for reason in self.kind.flaws(table).values():
            raise DamagedPart(uri, f"holds {reason}")
        if not uri.endswith(f"/{part_name(keys_of(table['sequence_id']))}.parquet"):
            raise DamagedPart(uri, "holds other sequences than its name says")
        return table

    def _read_if_there(self, uri: str) -> pa.Table | None:
        try:
            return self.read_part(uri).replace_schema_metadata()
        except FileNotFoundError:
            return None

    def read_failed(self, uri: str) -> pa.Table:
        """Read which sequences of a chunk cannot be measured. Raises `DamagedPart`."""
        return self._read(uri, FAILED, "failed")

    def _read(self, uri: str, schema: pa.Schema, holds: str) -> pa.Table:
        table = storage.read_table(uri)
        check_schema(uri, table.schema, schema)
        check_label(uri, table.schema.metadata, holds=holds, of=self.fingerprint)
        return table

    def failed_parts(self) -> list[File]:
        """List the files that say which sequences cannot be measured."""
        return storage.files_in(self._paths.failed, ".parquet")


def merged_names(metadata: Mapping[bytes, bytes] | None) -> list[str]:
    """Read the names of the parts that a part took in from its metadata; a part that was measured took none."""
    return (metadata or {}).get(MERGED, b"").decode().split()


def distinct(table: pa.Table) -> pa.Table:
    """Return the distinct sequences of a table, sorted by id, with their measurements.

    Of measurements that differ the one with the smallest number (such as the loss) counts, so the order and the
    merging of parts never show: two runs at once may measure a sequence in different batches, which round differently.
    """
    order = np.argsort(table.column(1).to_numpy(), kind="stable")
    _, index = np.unique(keys_of(table["sequence_id"])[order], return_index=True)
    return table.take(pa.array(order[index]))


def bundles(parts: Iterable[File]) -> list[list[File]]:
    """Deal parts out into lists that can be read at once."""
    dealt: list[list[File]] = []
    room = 0
    for part in parts:
        room -= part.size
        if not dealt or room < 0 or len(dealt[-1]) == PARTS_AT_ONCE:
            dealt.append([])
            room = BYTES_AT_ONCE - part.size
        dealt[-1].append(part)
    return dealt
