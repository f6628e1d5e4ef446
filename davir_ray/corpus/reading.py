"""Splits -> rows -> examples, streaming; a row that cannot be used carries its reason and goes on."""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from davir_ray.config import CorpusConfig
from davir_ray.corpus import arrow_files, csv_files, json_files, parquet_files
from davir_ray.corpus.detection import settings_of
from davir_ray.corpus.example import Example, content_hash
from davir_ray.corpus.formats import FORMATS, Format, picked
from davir_ray.corpus.not_read import Count, parquet_not_read
from davir_ray.corpus.raw_turns import usual_turns
from davir_ray.corpus.refused import is_wanted
from davir_ray.corpus.split import BadRow, Kind, Record, Split
from davir_ray.corpus.turns import drop_nulls
from davir_ray.errors import RowError
from davir_ray.schema import Status


@dataclass(frozen=True, slots=True)
class Parsed:
    """What became of one row. `example` is None unless `status` is `ok`; `row` counts from 0 in its file.

    id: the user's own name of the row, where it has one. not_read: its columns with values that nothing reads, as far
    as reading the row tells (see `not_read_columns`).
    """

    row: int
    example_id: bytes
    example: Example | None
    source: str
    group: str
    status: str
    reason: str | None
    id: str | None = None
    not_read: tuple[str, ...] = ()


class _Streamed(Protocol):
    """What a module has that reads one type of file from the first row on."""

    def rows(
        self, split: Split, columns: Sequence[str] | None, wanted: Container[int] | None = None
    ) -> Iterator[tuple[int, Record]]: ...
    def table(self, split: Split, wanted: Sequence[int]) -> pa.Table: ...
    def schema(self, split: Split) -> pa.Schema: ...


FILES: Mapping[Kind, _Streamed] = {
    "jsonl": json_files,
    "json": json_files,
    "csv": csv_files,
    "arrow": arrow_files,
}
"""How a file is read -> what reads it; of Parquet single row groups can be fetched, so it is read otherwise."""


def read_rows(
    split: Split,
    columns: Sequence[str] | None = None,
    batch_rows: int = 1024,
    wanted: Container[int] | None = None,
) -> Iterator[tuple[int, Record]]:
    """Read the rows of a split with their positions in the file; columns that are not there are left out.

    wanted: of a file that is not Parquet, the positions of the rows that are yielded; all of the split without it.
    """
    if split.kind == "parquet":
        return parquet_files.rows(split, columns, batch_rows)
    return FILES[split.kind].rows(split, columns, wanted)


def read_source_rows(split: Split, rows: Sequence[int]) -> pa.Table:
    """Read the rows at these positions of the file, in this order, with all the user's columns."""
    return (
        parquet_files.table(split, rows) if split.kind == "parquet" else FILES[split.kind].table(split, rows)
    )


def source_schema(split: Split) -> pa.Schema:
    """Return the columns of a split's file, of JSON as its first rows have them."""
    if split.kind == "parquet":
        return parquet_files.footer(split.path)[0].remove_metadata()
    return FILES[split.kind].schema(split)


def read_as(path: str, kind: Kind) -> Kind:
    """Return how a file is read that is called so: a `.json` file may hold lines."""
    return json_files.look(path, kind)[0] if kind in ("json", "jsonl") else kind


@dataclass(frozen=True)
class _Reading:
    """How the rows of a split are read. sources: what the format looks at, by its names -> the names in the files."""

    split: Split
    config: CorpusConfig
    format: Format
    sources: dict[str, str]
    read: frozenset[str]


def examples(
    split: Split, config: CorpusConfig, format: str, wanted: Container[int] | None = None
) -> Iterator[Parsed]:
    """Parse every row of a split, in order, each exactly once; of a JSON file, those that are `wanted`."""
    spec = FORMATS[format]
    settings = settings_of(config, split.source, spec)
    reading = _Reading(split, settings, spec, spec.sources(settings.columns), _read(spec, settings))
    # Of Parquet the columns that are not used are left alone; what else there is, is read whole in any case.
    columns = sorted(reading.read) if split.kind == "parquet" else None
    for row, record in read_rows(split, columns, wanted=wanted):
        yield _parsed(row, record, reading)


def not_read_columns(split: Split, config: CorpusConfig, format: str) -> dict[str, Count]:
    """Count, from the footer, the columns of a Parquet split that nothing reads; of JSON each row tells its own."""
    spec = FORMATS[format]
    return parquet_not_read(split, _read(spec, settings_of(config, split.source, spec)))


def _read(format: Format, config: CorpusConfig) -> frozenset[str]:
    """Return the columns that are looked at, for the format or for the recipe."""
    names = list(format.sources(config.columns).values())
    for path in (config.id, config.source_by, config.group_by):
        if path:
            names += [path, path.split(".")[0]]
    return frozenset(names)


def _parsed(row: int, record: Record, reading: _Reading) -> Parsed:
    split, config = reading.split, reading.config
    if isinstance(record, BadRow):
        group = split.source if config.group_by == "source" else ""
        return Parsed(row, content_hash(record.raw), None, split.source, group, record.status, record.reason)
    source = _label(record, config.source_by) or split.source
    group = source if config.group_by == "source" else _label(record, config.group_by)
    own_id = _label(record, config.id) or None
    values = usual_turns(picked(record, reading.sources), config.tags)
    not_read = tuple(name for name, value in record.items() if value is not None and name not in reading.read)
    try:
        example = reading.format.parse(values)
    except RowError as error:
        # Raw values stand for the content; nulls go, because which of them there are depends on the shard.
        key = content_hash(drop_nulls(values))
        return Parsed(row, key, None, source, group, error.status, error.reason, own_id, not_read)
    named = (config.columns.get(name, name) for name in _overruled(values, example))
    overruled = tuple(name for name in named if name not in (config.source_by, config.group_by))
    unread = (*not_read, *overruled)
    return Parsed(row, example.example_id, example, source, group, Status.OK, None, own_id, unread)


def _overruled(values: Mapping[str, Any], example: Example) -> Iterator[str]:
    """Name the columns that the format reads and that say nothing in this row.

    A system turn of the conversation itself stands before column `system`, as in other trainers; a `label` that is
    neither true nor false is not KTO's.
    """
    if values.get("system") and example.messages and example.messages[0]["content"] != values["system"]:
        yield "system"
    if "label" in values and is_wanted(values["label"]) is None:
        yield "label"


def _label(record: dict[str, Any], path: str | None) -> str:
    """Return the text of a column, or of a field within one (`meta.task`); empty where there is none."""
    if path is None:
        return ""
    value: Any = record.get(path)
    if value is None:
        value = record
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return text.encode("utf-8", "backslashreplace").decode()
