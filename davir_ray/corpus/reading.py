"""Splits -> rows -> examples, streaming; a row that cannot be used carries its reason and goes on."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from davir_ray.config import CorpusConfig
from davir_ray.corpus import json_files, parquet_files
from davir_ray.corpus.example import Example, content_hash
from davir_ray.corpus.formats import FORMATS, Format
from davir_ray.corpus.split import BadRow, Record, Split
from davir_ray.corpus.turns import drop_nulls
from davir_ray.errors import RowError
from davir_ray.schema import Status


@dataclass(frozen=True, slots=True)
class Parsed:
    """What became of one row. `example` is None unless `status` is `ok`; `row` counts from 0 in its file.

    id: the user's own name of the row, where it has one.
    """

    row: int
    example_id: bytes
    example: Example | None
    source: str
    group: str
    status: str
    reason: str | None
    id: str | None = None


def read_rows(
    split: Split, columns: Sequence[str] | None = None, batch_rows: int = 1024
) -> Iterator[tuple[int, Record]]:
    """Read the rows of a split with their positions in the file; columns that are not there are left out."""
    if split.kind == "parquet":
        return parquet_files.rows(split, columns, batch_rows)
    return json_files.rows(split, columns)


def read_source_rows(split: Split, rows: Sequence[int]) -> pa.Table:
    """Read the rows at these positions of the file, in this order, with all the user's columns."""
    return parquet_files.table(split, rows) if split.kind == "parquet" else json_files.table(split, rows)


def source_schema(split: Split) -> pa.Schema:
    """Return the columns of a split's file, of JSON as its first rows have them."""
    if split.kind == "parquet":
        return parquet_files.footer(split.path)[0].remove_metadata()
    return json_files.schema(split)


def examples(split: Split, config: CorpusConfig, format: str) -> Iterator[Parsed]:
    """Parse every row of a split, in order, each exactly once."""
    spec = FORMATS[format]
    for row, record in read_rows(split, _needed(spec, config)):
        yield _parsed(row, record, split, config, spec)


def _needed(format: Format, config: CorpusConfig) -> list[str]:
    names = [config.columns.get(name, name) for name in format.columns]
    for path in (config.id, config.source_by, config.group_by):
        if path:
            names += [path, path.split(".")[0]]
    return names


def _parsed(row: int, record: Record, split: Split, config: CorpusConfig, format: Format) -> Parsed:
    if isinstance(record, BadRow):
        group = split.source if config.group_by == "source" else ""
        return Parsed(row, content_hash(record.raw), None, split.source, group, record.status, record.reason)
    source = _label(record, config.source_by) or split.source
    group = source if config.group_by == "source" else _label(record, config.group_by)
    own_id = _label(record, config.id) or None
    values = format.select(record, config.columns)
    try:
        example = format.parse(values)
    except RowError as error:
        # Raw values stand for the content; nulls go, because which of them there are depends on the shard.
        key = content_hash(drop_nulls(values))
        return Parsed(row, key, None, source, group, error.status, error.reason, own_id)
    return Parsed(row, example.example_id, example, source, group, Status.OK, None, own_id)


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
