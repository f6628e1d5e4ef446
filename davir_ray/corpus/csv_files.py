"""CSV, plain or compressed, with a header: every value is text, an empty one is nothing.

What is written as JSON in a column (turns, tools) is read as what it says, as everywhere.
"""

import csv
import io
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import pyarrow as pa

from davir_ray.corpus import mistaken
from davir_ray.corpus.json_files import opened
from davir_ray.corpus.split import BadRow, Record, Split
from davir_ray.errors import UnreadableFile
from davir_ray.foreign_text import is_text
from davir_ray.schema import Status

LONGEST_VALUE = 2**31 - 1
"""Characters of a value; the library's own limit is 131,072."""


def look(path: str) -> tuple[str, ...]:
    """Return the columns of a file. Raises `UnreadableFile` where there is no header, with what the file is instead."""
    with opened(path) as file:
        head = file.read(4096)
    if not head.strip():
        raise UnreadableFile(f"{path}: is empty, expected CSV with a header")
    if wrong := mistaken.known_by_beginning(head):
        raise UnreadableFile(f"{path}: {wrong}")
    with _parsed(path) as lines:
        columns = next(lines, [])
    _check_utf8(path, ",".join(columns))
    names = [name.strip() for name in columns]
    if twice := next((name for name in names if names.count(name) > 1 or not name), None):
        raise UnreadableFile(
            f"{path}: its header has the column `{twice}` several times; expected each name once"
        )
    if not all(names):
        raise UnreadableFile(f"{path}: its header has a column without a name: {','.join(names)[:80]}")
    return tuple(names)


def _check_utf8(path: str, header: str) -> None:
    data = header.encode("utf-8", "surrogateescape")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"{path}: its header {mistaken.not_utf8(data, error)}") from error


@contextmanager
def _parsed(path: str) -> Iterator[Iterator[list[str]]]:
    """Open a file and yield its records, the header first; what is no CSV is an `UnreadableFile`."""
    csv.field_size_limit(LONGEST_VALUE)
    with opened(path) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(text, strict=True)
        try:
            yield reader
        except csv.Error as error:
            raise UnreadableFile(
                f"{path}: is no CSV at line {reader.line_num}: {error}; expected values with commas, quotes or line "
                'breaks within "quotes", a quote doubled'
            ) from error
        finally:
            text.detach()


def rows(
    split: Split, columns: Sequence[str] | None = None, wanted: Container[int] | None = None
) -> Iterator[tuple[int, Record]]:
    """Read the rows of a split with their positions in the file (blank lines are no rows).

    wanted: positions of the rows that are yielded; without it, all of the split.
    """
    names = look(split.path)
    with _parsed(split.path) as lines:
        next(lines, None)
        records = enumerate(line for line in lines if line)
        end = None if split.num_rows is None else split.first_row + split.num_rows
        for row, values in islice(records, split.first_row, end):
            if wanted is None or row in wanted:
                yield row, _record(names, values, columns)


def _record(names: Sequence[str], values: Sequence[str], columns: Sequence[str] | None) -> Record:
    raw = ",".join(values)
    if len(values) != len(names):
        reason = f"expected {len(names)} values, as many as the header has columns, found {len(values)}"
        return BadRow(Status.BAD_FORMAT, reason, raw.encode("utf-8", "surrogateescape").hex())
    for name, value in zip(names, values, strict=True):
        if not is_text(value):
            reason = f"column `{name}`: is not UTF-8, or holds a NUL"
            return BadRow(Status.BAD_TEXT, reason, raw.encode("utf-8", "surrogateescape").hex())
    found = zip(names, values, strict=True)
    return {name: value or None for name, value in found if columns is None or name in columns}


def table(split: Split, wanted: Sequence[int]) -> pa.Table:
    """Read the rows at these positions of the file, in this order, as text."""
    needed, file_schema = set(wanted), schema(split)
    found = {row: record for row, record in rows(split) if row in needed}
    records = [record if isinstance(record := found[row], dict) else {} for row in wanted]
    return pa.Table.from_pylist(records, schema=file_schema)


def schema(split: Split) -> pa.Schema:
    """Return the columns of a file."""
    return pa.schema([(name, pa.string()) for name in look(split.path)])
