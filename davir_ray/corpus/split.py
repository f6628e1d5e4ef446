"""What is read in one go: a file or a part of it, and the rows that it yields."""

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["parquet", "jsonl", "json", "csv", "arrow"]

KINDS: dict[str, Kind] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".arrow": "arrow",
}
"""File suffix -> how the file is read. A `.json` file that holds lines is read as `jsonl`."""

CODECS = {".gz": "gzip", ".zst": "zstd"}
"""Suffix behind one of JSON or CSV -> how the file is compressed."""


@dataclass(frozen=True)
class Split:
    """Rows `first_row` to `first_row + num_rows` of a file; `num_rows` None is all that follow.

    row_groups: for Parquet, the row groups that hold these rows.
    """

    source: str
    path: str
    kind: Kind
    first_row: int
    num_rows: int | None
    row_groups: tuple[int, ...] | None


@dataclass(frozen=True)
class BadRow:
    """A row that is in the file, but not readable as columns. `raw` is what it is known by."""

    status: str
    reason: str
    raw: str


Record = dict[str, Any] | BadRow


def place_text(file: str, row: int) -> str:
    """Name a row of the corpus by its file and its position there, from 0."""
    return f"{file}:{row}"


def kind_of(path: str) -> Kind | None:
    """Return how a file of this name is read, None if it is no corpus file."""
    name = path.lower()
    for suffix in CODECS:
        if name.endswith(suffix):
            kind = KINDS.get(_suffix(name.removesuffix(suffix)))
            return None if kind in ("parquet", "arrow") else kind
    return KINDS.get(_suffix(name))


def codec_of(path: str) -> str | None:
    """Return how a file of this name is compressed."""
    return CODECS.get(_suffix(path.lower()))


def _suffix(name: str) -> str:
    return name[name.rfind(".") :] if "." in name else ""
