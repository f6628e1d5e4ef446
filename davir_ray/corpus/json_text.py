"""Values of rows as JSON: what other programs can read, and columns of Parquet that hold it as text."""

import base64
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

JSON_TEXT = {b"davir": b"json"}
"""Metadata of a field that holds JSON text because no one type of Arrow holds its values."""

NOT_FINITE = "NaN or Infinity, which JSON cannot hold: written as null"
BYTES = "bytes, which JSON cannot hold: written as base64"


def to_json(value: Any) -> str:
    """Return valid JSON in one line: NaN and Infinity are null, bytes are base64, what else JSON lacks is text."""
    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair becomes its JSON escape


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def losses(value: Any) -> Iterator[str]:
    """Say what of a value `to_json` cannot keep: `NOT_FINITE` or `BYTES`, once for each time it is there."""
    if isinstance(value, float) and not math.isfinite(value):
        yield NOT_FINITE
    elif isinstance(value, bytes):
        yield BYTES
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from losses(item)


def is_json_text(field: pa.Field) -> bool:
    """Tell whether davir wrote this column as JSON text."""
    return (field.metadata or {}).get(b"davir") == b"json"


def json_columns(schema: pa.Schema) -> tuple[str, ...]:
    """Name the columns that davir wrote as JSON text."""
    return tuple(field.name for field in schema if is_json_text(field))


def decoded(record: Mapping[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """Return a row with these columns of JSON text as what they say; text that is no JSON stays as it is."""
    return {name: _parsed(value) if name in columns else value for name, value in record.items()}


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


LABELS = ("role", "from", "id")
"""Keys whose text says nothing of what a row is about."""


def texts_within(value: Any) -> Iterator[str]:
    """Yield the texts within a row, in their order, without those of LABELS."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for name, part in value.items() if name not in LABELS for text in texts_within(part))
    elif isinstance(value, list):
        yield from (text for part in value for text in texts_within(part))
