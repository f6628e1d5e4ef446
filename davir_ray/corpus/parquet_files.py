"""Parquet files: footers, rows in batches, and single rows with all their columns."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from davir_ray.corpus import mistaken
from davir_ray.corpus.json_text import decoded, json_columns
from davir_ray.corpus.opening import opened_file
from davir_ray.corpus.split import BadRow, Record, Split
from davir_ray.errors import UnreadableFile
from davir_ray.schema import Status
from davir_ray.storage.filesystems import is_damage

MAGIC = b"PAR1"

MEDIA = "bytes"
"""The field in which `datasets` keeps an image or a sound; all other binary values are text."""


@contextmanager
def opened(path: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; what Arrow cannot make sense of is an `UnreadableFile`."""
    with opened_file(path) as file:
        try:
            yield pq.ParquetFile(file)
        except (pa.ArrowException, OSError) as error:
            if not is_damage(error):
                raise
            raise UnreadableFile(f"{path}: {_what_is_wrong(file)} ({_first_line(error)})") from error


def _what_is_wrong(file: pa.PythonFile) -> str:
    size = file.seek(0, 2)
    if size == 0:
        return "is empty (0 bytes), expected Parquet"
    file.seek(0)
    head = file.read(64)
    file.seek(max(0, size - 4))
    if not head.startswith(MAGIC):
        known = mistaken.known_by_beginning(head)
        return f"is not Parquet: {size} bytes that begin with {head[:4]!r}{f'; {known}' if known else ''}"
    if file.read(4) != MAGIC:
        return f"is cut off: it begins as Parquet, but its {size} bytes end without a footer"
    return f"is damaged: Parquet of {size} bytes that cannot be decoded"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def footer(path: str) -> tuple[pa.Schema, tuple[int, ...]]:
    """Return the schema, and how many rows each row group has.

    Raises `UnreadableFile` where two columns, or two fields of one, have the same name.
    """
    with opened(path) as file:
        meta, schema = file.metadata, file.schema_arrow
    check_names(path, schema)
    return schema, tuple(meta.row_group(i).num_rows for i in range(meta.num_row_groups))


def check_names(path: str, schema: pa.Schema) -> None:
    """Raise `UnreadableFile` where two columns, or two fields of one, have the same name."""
    if names := _repeated(list(schema), ""):
        raise UnreadableFile(
            f"{path}: has several columns of one name: {', '.join(f'`{name}`' for name in names)}; "
            "expected each once: rename or drop the others"
        )


def _repeated(fields: Sequence[pa.Field], within: str) -> list[str]:
    """List the names that stand more than once beside each other, at every depth."""
    counts = Counter(field.name for field in fields)
    found = [within + name for name, count in counts.items() if count > 1]
    for field in fields:
        inner = [field.type.field(index) for index in range(field.type.num_fields)]
        found += _repeated(inner, f"{within}{field.name}.")
    return found


def rows(split: Split, columns: Sequence[str] | None, batch_rows: int) -> Iterator[tuple[int, Record]]:
    """Read the rows of a split with their positions in the file; `columns` None is all of them.

    Binary values are read as text, as what wrote them meant it; those of images and sounds are not.
    """
    with opened(split.path) as file:
        names, texts = file.schema_arrow.names, json_columns(file.schema_arrow)
        wanted = None if columns is None else [name for name in names if name in columns]
        for first, batch in _batches(file, split, wanted, batch_rows):
            for row, record in enumerate(records_of(with_text(batch)), first):
                yield row, decoded(record, texts) if texts and isinstance(record, dict) else record


def with_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Take binary columns for text, unchecked: what is not UTF-8 is found when it is decoded."""
    schema = pa.schema([field.with_type(_text_type(field.type)) for field in batch.schema])
    return batch if schema.equals(batch.schema) else batch.cast(schema, safe=False)


def _text_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_binary(type_) or pa.types.is_fixed_size_binary(type_):
        return pa.string()
    if pa.types.is_large_binary(type_):
        return pa.large_string()
    if pa.types.is_binary_view(type_):
        return pa.string_view()
    if pa.types.is_dictionary(type_) and not type_.value_type.equals(text := _text_type(type_.value_type)):
        return text
    if pa.types.is_struct(type_):
        return pa.struct([f if f.name == MEDIA else f.with_type(_text_type(f.type)) for f in type_])
    if pa.types.is_list(type_):
        return pa.list_(type_.value_field.with_type(_text_type(type_.value_type)))
    if pa.types.is_large_list(type_):
        return pa.large_list(type_.value_field.with_type(_text_type(type_.value_type)))
    return type_


def _batches(
    file: pq.ParquetFile, split: Split, columns: list[str] | None, batch_rows: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Read a split in batches; ones whose nested text goes beyond Arrow's 2 GiB a batch are made smaller."""
    left = split
    while True:
        try:
            for first, batch in _read(file, left, columns, batch_rows):
                yield first, batch
                done = first + batch.num_rows - left.first_row
                left = replace(left, first_row=left.first_row + done, num_rows=(left.num_rows or 0) - done)
            return
        except pa.ArrowNotImplementedError:
            if batch_rows == 1:
                raise
            batch_rows = max(1, batch_rows // 8)


def _read(
    file: pq.ParquetFile, split: Split, columns: list[str] | None, batch_rows: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    groups = split.row_groups or ()
    at = sum(file.metadata.row_group(i).num_rows for i in range(groups[0])) if groups else 0
    end = split.first_row + (split.num_rows or 0)
    # One thread: the callers run side by side already, and order must be kept.
    for batch in file.iter_batches(batch_rows, row_groups=list(groups), columns=columns, use_threads=False):
        low, high = max(split.first_row - at, 0), min(end - at, batch.num_rows)
        if low < high:
            yield at + low, batch.slice(low, high - low)
        at += batch.num_rows
        if at >= end:
            return


def records_of(batch: pa.RecordBatch) -> list[Record]:
    """Return the rows of a batch; one in which some text is not UTF-8 is a `BadRow`."""
    try:
        records: list[Record] = list(batch.to_pylist())
    except UnicodeDecodeError:
        records = [_record(batch, index) for index in range(batch.num_rows)]
    return records


def _record(batch: pa.RecordBatch, index: int) -> Record:
    """Read one row of a batch in which some text is not UTF-8."""
    row = batch.take(pa.array([index]))
    for name in sorted(row.schema.names):
        try:
            row.column(name).to_pylist()
        except UnicodeDecodeError as error:
            raw = row.select(sorted(row.schema.names)).serialize().to_pybytes().hex()
            return BadRow(Status.BAD_TEXT, f"column `{name}`: is not UTF-8: {error.reason}", raw)
    record: Record = row.to_pylist()[0]
    return record


def table(split: Split, wanted: Sequence[int]) -> pa.Table:
    """Read the rows at these positions of the file, in this order, with all columns and their types."""
    ordered = sorted(set(wanted))
    with opened(split.path) as file:
        parts = [file.schema_arrow.empty_table()]
        for first, batch in _batches(file, split, None, 1024):
            low, high = bisect_left(ordered, first), bisect_left(ordered, first + batch.num_rows)
            if low < high:
                picked = batch.take(pa.array([row - first for row in ordered[low:high]]))
                parts.append(pa.Table.from_batches([picked], parts[0].schema))
    found = pa.concat_tables(parts)
    if list(wanted) == ordered:
        return found  # as its chunks: to take from them would join their text, beyond Arrow's 2 GiB
    place = {row: index for index, row in enumerate(ordered)}
    return found.take(pa.array([place[row] for row in wanted], pa.int64()))
