"""The table of the core-set's rows: columns of plain data that the page's script searches, sorts and filters."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonprefix
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from davir_ray import storage
from davir_ray.coreset.export import RANK_COLUMN, SIDE
from davir_ray.corpus.json_text import texts_within
from davir_ray.corpus.split import place_text
from davir_ray.foreign_text import without_credentials
from davir_ray.storage.layout import RunLayout

TEXT_BYTES = 2_000_000
"""Bytes that the texts of all rows together may take."""
LONGEST = 300
"""Bytes of a row's text at most."""


@dataclass(frozen=True)
class CoresetRows:
    """Columns of rows, name -> values in the order of ranks.

    `text` is there where the run wrote its core-set as Parquet, `group` where it tells more than the source, `id` where
    rows have one, and `place` for the rows that have none. folder: stands in front of each place.
    """

    columns: Mapping[str, list[Any]] = field(default_factory=dict)
    folder: str = ""


def coreset_rows(folder: str, chosen: pa.Table | None) -> CoresetRows:
    """Return the rows of the table. folder: of the run. chosen: figures.Figures.chosen."""
    if chosen is None or not len(chosen):
        return CoresetRows()
    rows = chosen.sort_by("rank")
    tokens = np.maximum(rows["num_tokens"].fill_null(0).to_numpy(), 1)
    texts = dict(texts_of(folder, rows["rank"]))
    files = [without_credentials(file) for file in rows["file"].to_pylist()]
    common = common_folder(files)
    columns = {
        "rank": rows["rank"].to_pylist(),
        "score": _numbers(rows["score"].to_numpy()),
        "tokens": rows["num_tokens"].to_pylist(),
        "base": _numbers(rows["base_loss"].to_numpy(zero_copy_only=False) / tokens),
        "reference": _numbers(rows["reference_loss"].to_numpy(zero_copy_only=False) / tokens),
        "source": rows["source"].to_pylist(),
        **_groups(rows),
        **_names(rows, [file.removeprefix(common) for file in files]),
    }
    text = {"text": [texts.get(rank, "") for rank in columns["rank"]]} if texts else {}
    return CoresetRows(columns | text, common)


def common_folder(files: Sequence[str]) -> str:
    """Return the folder that all files lie below, with the slash that ends it; empty if there is none."""
    return "".join(commonprefix(files).rpartition("/")[:2])


def _groups(rows: pa.Table) -> dict[str, list[Any]]:
    groups = rows["group"].to_pylist()
    return {"group": groups} if any(groups) and groups != rows["source"].to_pylist() else {}


def _names(rows: pa.Table, files: Sequence[str]) -> dict[str, list[Any]]:
    """Return the ids of rows, and the places of those without one; a column of nothing is left out."""
    ids = rows["id"].to_pylist()
    places = [
        None if own else place_text(file, row)
        for own, file, row in zip(ids, files, rows["row"].to_pylist(), strict=True)
    ]
    return {name: values for name, values in (("id", ids), ("place", places)) if any(values)}


def _numbers(values: Any) -> list[float | None]:
    return [None if np.isnan(one) else float(f"{one:.6g}") for one in np.asarray(values, dtype=np.float64)]


def texts_of(folder: str, ranks: pa.ChunkedArray) -> Iterator[tuple[int, str]]:
    """Yield ranks of chosen rows with the beginning of their text, as far as the run wrote its core-set as Parquet."""
    most = min(LONGEST, TEXT_BYTES // len(ranks))
    wanted = ranks.combine_chunks()
    for file in storage.files_below(RunLayout(folder).coreset):
        if not file.uri.endswith(".parquet"):
            continue
        there = storage.read_table(file.uri, [RANK_COLUMN])[RANK_COLUMN]
        here = np.flatnonzero(np.asarray(pc.is_in(there, wanted)))
        for row in storage.read_rows(file.uri, here.tolist()).to_pylist() if len(here) else ():
            own = {name: value for name, value in row.items() if name not in SIDE}
            yield row[RANK_COLUMN], beginning(own, most)


def beginning(row: Any, most: int) -> str:
    """Return the texts within a row in one line, cut to so many bytes of UTF-8."""
    text = " | ".join(" ".join(part.split()) for part in texts_within(row))
    data = text.encode("utf-8", "backslashreplace")
    return text if len(data) <= most else data[: most - 3].decode("utf-8", "ignore") + "..."
