"""JSON lines and JSON arrays, plain or compressed, read row by row."""

import io
import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa

from davir_ray.corpus import mistaken
from davir_ray.corpus.json_text import JSON_TEXT, to_json
from davir_ray.corpus.opening import opened_file
from davir_ray.corpus.split import BadRow, Kind, Record, Split, codec_of
from davir_ray.corpus.turns import describe, drop_nulls
from davir_ray.errors import UnreadableFile
from davir_ray.schema import Status
from davir_ray.storage.filesystems import is_damage

DEEPEST = 64
"""Brackets within brackets that a row may have; more would overflow the stack of whoever walks it."""

BOM = b"\xef\xbb\xbf"
SNIFFED_ROWS = 100


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Open a file and decompress it; a broken stream is an `UnreadableFile`."""
    codec = codec_of(path)
    with opened_file(path) as file:
        if codec is None:
            yield file
            return
        try:
            yield io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), codec), 1 << 20)
        except (pa.ArrowException, OSError) as error:
            if not is_damage(error):
                raise
            raise UnreadableFile(f"{path}: is not {codec}, or is cut off ({error})") from error


def look(path: str, kind: Kind) -> tuple[Kind, tuple[str, ...], int | None]:
    """Return how to read the file, the columns of its first rows, and how many rows it has if that is known.

    A JSON array is read whole, here and later; so its columns are those of all rows.
    Raises `UnreadableFile` where there is nothing to read, with what the file is instead.
    """
    with opened(path) as file:
        head = file.read(4096)
    start = head.removeprefix(BOM).lstrip()
    if not start:
        raise UnreadableFile(f"{path}: is empty, expected JSON")
    if wrong := mistaken.metadata(path, head) or mistaken.known_by_beginning(head):
        raise UnreadableFile(f"{path}: {wrong}")
    if start.startswith(b"[") and (items := _items(path, kind)) is not None:
        return "json", _columns(path, items), len(items)
    first = list(islice(_lines(path), SNIFFED_ROWS))
    if isinstance(first[0], BadRow) and (wrong := _spread(path)):
        raise UnreadableFile(f"{path}: {wrong}")
    return "jsonl", _columns(path, first), None


def columns(path: str) -> tuple[str, ...]:
    """Return the columns of all rows of a JSON lines file."""
    return tuple(dict.fromkeys(name for item in _lines(path) if isinstance(item, dict) for name in item))


def _columns(path: str, items: Sequence[Record]) -> tuple[str, ...]:
    known = [item for item in items if isinstance(item, dict)]
    if not known:
        if not items:
            raise UnreadableFile(f"{path}: is a JSON array without rows")
        first = next(item.reason for item in items if isinstance(item, BadRow))
        raise UnreadableFile(f"{path}: none of its first {len(items)} rows is a JSON object; row 0: {first}")
    return tuple(dict.fromkeys(name for item in known for name in item))


def _items(path: str, kind: Kind) -> list[Record] | None:
    """Read a JSON array; None where lines are expected, and the file is no array."""
    try:
        return list(_array(path))
    except UnreadableFile:
        if kind == "json":
            raise
        return None


def _spread(path: str) -> str | None:
    with opened(path) as file:
        return mistaken.spread_object(file.read(mistaken.LONGEST))


def count_rows(path: str, limit: int) -> int:
    """Count the rows of a JSON lines file, up to a limit."""
    with opened(path) as file:
        return sum(1 for _ in islice((line for line in file if line.strip()), limit))


def rows(
    split: Split, columns: Sequence[str] | None, wanted: Container[int] | None = None
) -> Iterator[tuple[int, Record]]:
    """Read the rows of a split with their positions in the file (blank lines are no rows).

    wanted: positions of the rows that are yielded; lines of others are passed over without parsing them.
    """
    items: Iterable[Any] = _array(split.path) if split.kind == "json" else _raw(split.path)
    end = None if split.num_rows is None else split.first_row + split.num_rows
    for row, item in islice(enumerate(items), split.first_row, end):
        if wanted is not None and row not in wanted:
            continue
        record = _parse(item.strip()) if isinstance(item, bytes) else item
        if columns is not None and isinstance(record, dict):
            record = {name: record[name] for name in columns if name in record}
        yield row, record


def _lines(path: str) -> Iterator[Record]:
    return (_parse(line.strip()) for line in _raw(path))


def _raw(path: str) -> Iterator[bytes]:
    """Read the lines that are not blank, without their ends and the file's byte order mark."""
    with opened(path) as file:
        for number, line in enumerate(file):
            line = line.removeprefix(BOM) if number == 0 else line
            if line.strip():
                yield line.rstrip(b"\r\n")


def _array(path: str) -> Iterable[Record]:
    with opened(path) as file:
        data = file.read()
    try:
        items = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"{path}: {mistaken.not_utf8(data, error)}") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(f"{path}: begins as a JSON array, but is not valid JSON: {error}") from error
    return [_checked(item, ascii(item) if not isinstance(item, dict) else "") for item in items]


def _parse(line: bytes) -> Record:
    raw = line.decode("utf-8", "backslashreplace")
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        return BadRow(Status.BAD_TEXT, f"the line {mistaken.not_utf8(line, error)}", raw)
    except json.JSONDecodeError as error:
        found = ascii(raw[max(0, error.pos - 20) : error.pos + 20])
        reason = f"is not valid JSON: {error.msg} at character {error.pos + 1}, near {found}"
        return BadRow(Status.BAD_FORMAT, reason, raw)
    except (ValueError, RecursionError) as error:
        return BadRow(Status.BAD_FORMAT, f"is not valid JSON: {error}", raw)
    return _checked(value, raw)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs. Raises `ValueError` where a key stands twice: one of its values would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!a} stands twice in one object")
    return found


def _checked(value: Any, raw: str) -> Record:
    if not isinstance(value, dict):
        return BadRow(Status.BAD_FORMAT, f"expected a JSON object, found {describe(value)}", raw)
    if deeper_than(value, DEEPEST):
        return BadRow(Status.BAD_FORMAT, f"the row is nested more than {DEEPEST} deep", raw)
    return value


def deeper_than(value: Any, limit: int) -> bool:
    """Tell whether objects and lists lie within each other more often than that."""
    level = [value]
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def table(split: Split, wanted: Sequence[int]) -> pa.Table:
    """Read the rows at these positions of the file, in this order, with types inferred from them."""
    needed = set(wanted)
    found = {row: record for row, record in rows(split, None) if row in needed}
    return inferred([record if isinstance(record := found[row], dict) else {} for row in wanted])


def schema(split: Split) -> pa.Schema:
    """Infer the schema of a file from its first rows."""
    first = [record for _, record in islice(rows(split, None), SNIFFED_ROWS)]
    return inferred([record for record in first if isinstance(record, dict)]).schema


def own_lines(split: Split, wanted: Sequence[int]) -> list[bytes]:
    """Return the rows at these positions as they stand in the file, in this order, without the ends of lines.

    The rows of a JSON array are written anew, a line each.
    """
    needed = set(wanted)
    if split.kind == "json":
        found = {row: to_json(record).encode() for row, record in rows(split, None) if row in needed}
    else:
        lines = islice(enumerate(_raw(split.path)), max(needed, default=-1) + 1)
        found = {row: line for row, line in lines if row in needed}
    return [found[row] for row in wanted]


def inferred(records: Sequence[dict[str, Any]]) -> pa.Table:
    """Turn rows into a table; a column whose values Arrow would refuse or change holds them as JSON text."""
    names = dict.fromkeys(name for record in records for name in record)
    columns = [_inferred(name, [record.get(name) for record in records]) for name in names]
    return pa.Table.from_arrays(
        [array for _, array in columns], schema=pa.schema([field for field, _ in columns])
    )


def _inferred(name: str, values: list[Any]) -> tuple[pa.Field, pa.Array]:
    """Infer a column's type; what Arrow cannot hold in one type, unchanged, becomes JSON text."""
    try:
        array = pa.array(values)
        if _are_same(array.to_pylist(), values):
            return pa.field(name, array.type), array
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        pass
    texts = [None if value is None else to_json(value) for value in values]
    return pa.field(name, pa.string(), metadata=JSON_TEXT), pa.array(texts, pa.string())


def _are_same(one: list[Any], other: list[Any]) -> bool:
    """Compare values of a column; nulls in structures are nothing, and 1 is 1.0 only where it is the whole value."""
    return all(
        first == second or first != first  # the second is NaN too
        if isinstance(first, int | float)
        else _canonical(first) == _canonical(second)
        for first, second in zip(one, other, strict=True)
    )


def _canonical(value: Any) -> str:
    return json.dumps(drop_nulls(value), sort_keys=True)
