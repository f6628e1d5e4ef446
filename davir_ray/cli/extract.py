"""What rows of the corpus say, in a line each, for tables that name a few rows by file and row."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

import pyarrow as pa

from davir_ray.corpus import json_files, parquet_files
from davir_ray.corpus.json_text import texts_within
from davir_ray.corpus.reading import read_rows
from davir_ray.corpus.split import Split, kind_of
from davir_ray.errors import DavirError
from davir_ray.tokens.preview import visible

Place = tuple[str, int]
"""A file of the corpus, and a row of it, from 0."""

WIDTH = 88
"""Characters of a row that are shown."""
FARTHEST = 200_000
"""A JSON file is read from its first row on; of rows behind this one nothing is shown."""


def extracts(places: Iterable[Place]) -> dict[Place, str]:
    """Return how rows of the corpus begin, printable and in one line each; a row that cannot be read is left out."""
    by_file: dict[str, set[int]] = defaultdict(set)
    for file, row in places:
        by_file[file].add(row)
    found: dict[Place, str] = {}
    for file, rows in by_file.items():
        try:
            found |= {(file, row): _shortened(record) for row, record in _records(file, rows)}
        except (
            OSError,
            pa.ArrowException,
            DavirError,
        ):  # a table is no place to stop for a file that is gone
            continue
    return {place: text for place, text in found.items() if text}


def _records(file: str, rows: set[int]) -> Iterator[tuple[int, Any]]:
    for split in _splits(file, rows):
        yield from ((row, record) for row, record in read_rows(split) if row in rows)


def _splits(file: str, rows: set[int]) -> Iterator[Split]:
    """Yield what has to be read of a file: single rows of Parquet, of JSON all up to the last."""
    kind = kind_of(file)
    if kind == "parquet":
        ends = list(accumulate(parquet_files.footer(file)[1]))
        for row in rows:
            group = sum(end <= row for end in ends)
            yield Split("", file, kind, row, 1, (group,))
    elif kind is not None and (near := [row for row in rows if row < FARTHEST]):
        yield Split("", file, json_files.look(file, kind)[0], 0, max(near) + 1, None)


def _shortened(record: Any) -> str:
    text = " | ".join(" ".join(part.split()) for part in texts_within(record))
    return visible(text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}...")
