"""The Ray stage that writes the scored table, and the core-set in the shapes that trainers read.

    ranked parts + selections -> <run>/scored/00000.parquet ...
                           -> the chosen rows, fetched from their splits -> <run>/coreset/part-00000.parquet ...

A source row reaches the core-set unchanged: it is read again from its file, by place. Rows of several sources go to a
folder each, `<run>/coreset/<source>/part-00000.parquet`, so that none is padded with another's columns. Each file is a
range of ranks, so what is written does not depend on how the corpus was cut into splits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from davir_ray import storage
from davir_ray.cluster.ray_exchange import block_of, blocks_of, cut, gather, rows_per_block, scatter
from davir_ray.coreset.dataset_info import write_dataset_info
from davir_ray.coreset.export import (
    CHOSEN,
    RANK_COLUMN,
    SCORE_COLUMN,
    SHAPES,
    SIDE,
    CoresetFiles,
    Fetched,
    content,
    files_column,
    json_lines,
    places_within,
    shaped,
    with_side,
)
from davir_ray.coreset.export_plan import Counts, Export
from davir_ray.coreset.ray_rank import Ranked
from davir_ray.coreset.rules.choose import Selection
from davir_ray.corpus import json_files
from davir_ray.corpus.columns import conform, unify
from davir_ray.corpus.formats import is_paired
from davir_ray.corpus.reading import examples, read_source_rows, source_schema
from davir_ray.corpus.split import Split
from davir_ray.errors import UnreadableFile
from davir_ray.ids import split_block, split_table
from davir_ray.progress import warn
from davir_ray.schema import scored_schema
from davir_ray.storage.json_lines import write_lines
from davir_ray.storage.layout import RunLayout, coreset_file, numbered

_KEPT = ("split", "row", "example_id", "id", "source", "frozen_chosen_loss", "frozen_rejected_loss")
"""Columns that the chosen rows keep as they are."""


def write_scored(
    ranked: Ranked, selections: Sequence[Selection], rules: Sequence[str], export: Export
) -> Counts:
    """Write the scored table; count the rows that it selects."""
    task, shared = ray.remote(write_scored_part), ray.put(export)
    parts = [
        task.remote(shared, ranked, index, selection, rules) for index, selection in enumerate(selections)
    ]
    return np.array(ray.get(parts), dtype=np.int64).reshape(len(selections), len(export.splits))


def write_scored_part(
    export: Export, ranked: Ranked, index: int, selection: Selection, rules: Sequence[str]
) -> NDArray[np.int64]:
    """Write one part of the scored table; count the rows that it selects, by split."""
    table = ranked.part(index)
    uri = numbered(RunLayout(export.run_dir).scored, index)
    has_rank = np.asarray(table["rank"].is_valid())
    selected = np.zeros(len(table), dtype=bool)
    selected[has_rank] = selection.selected
    names = np.array([*rules, None], dtype=object)
    dropped: Any = np.full(len(table), None, dtype=object)
    dropped[has_rank] = names[selection.dropped_by]
    split = table["split"].to_numpy()
    scored = (
        table.append_column("file", files_column(split, [one.path for one in export.splits]))
        .append_column("selected", pa.array(selected))
        .append_column("dropped_by", pa.array(dropped, pa.string()))
    )
    schema = scored_schema(table.column_names)
    storage.write_table(uri, scored.select(schema.names).cast(schema))
    write_unscored(export, scored.filter(pa.array(~has_rank)), index)
    return np.bincount(split[selected], minlength=len(export.splits))


def write_unscored(export: Export, table: pa.Table, index: int) -> None:
    """List the rows without a rank by file and row, for whoever wants to mend them."""
    if len(table):
        rows = table.select(["file", "row", "status", "reason"]).to_pylist()
        write_lines(numbered(RunLayout(export.run_dir).unscored, index, "jsonl"), rows)


def choose_places(
    export: Export, ranked: Ranked, selections: Sequence[Selection], counts: Counts
) -> list[Any]:
    """Deal the selected rows out to the splits that they came from: a reference to a CHOSEN table a split."""
    blocks = blocks_of(counts.sum(axis=0).tolist(), rows_per_block(len(selections)))
    totals, shared = export.by_folder(counts), ray.put(export)
    before = np.cumsum(totals, axis=0) - totals
    pieces = [
        scatter(deal_places, len(blocks), shared, ranked, index, selection, before[index], blocks)
        for index, selection in enumerate(selections)
    ]
    return cut(pieces, by_split, blocks)


def deal_places(
    export: Export,
    ranked: Ranked,
    index: int,
    selection: Selection,
    before: NDArray[np.int64],
    blocks: Sequence[range],
) -> list[pa.Table]:
    """Deal the rows chosen from one part to the blocks of their splits.

    before: how many are chosen before them, by folder.
    """
    table = ranked.part(index, [*_KEPT, "score", "rank"])
    table = table.filter(table["rank"].is_valid()).filter(pa.array(selection.selected))
    split = table["split"].to_numpy()
    place = places_within(export.folder_of[split], before)
    table = table.append_column("place", pa.array(place))
    table = table.rename_columns({"score": SCORE_COLUMN, "rank": RANK_COLUMN})
    chosen = table.select(CHOSEN.names).cast(CHOSEN)
    return split_table(chosen, block_of(split, blocks), len(blocks))


def by_split(block: range, *pieces: pa.Table) -> list[pa.Table]:
    """Cut the chosen rows of a block into one table a split."""
    return split_block(pa.concat_tables(pieces), block)


@dataclass(frozen=True)
class Seen:
    """What the fetched rows of a split say of their file. notes: what a format could not hold, in words."""

    schema: pa.Schema
    notes: tuple[str, ...]


def write_coreset(
    export: Export, ranked: Ranked, selections: Sequence[Selection], counts: Counts
) -> dict[str, str]:
    """Write the core-set in every asked format; return the folder of each. counts: see `write_scored`."""
    layout, places = export.layout(counts), counts.sum(axis=0).tolist()
    fetch, shared = ray.remote(fetch_rows).options(num_returns=2), ray.put(export)
    chosen = choose_places(export, ranked, selections, counts)
    fetched: dict[int, Any] = {
        split: fetch.remote(shared, split, table) for split, table in enumerate(chosen) if places[split]
    }
    seen = dict(zip(fetched, ray.get([seen for seen, _ in fetched.values()]), strict=True))
    known = _schemas(export, seen)
    schemas = ray.put(known)
    pieces = [
        scatter(
            deal_files,
            sum(layout.files),
            shared,
            layout,
            *[fetched[split][1] for split in block if places[split]],
        )
        for block in blocks_of(places, export.config.rows_per_file)
    ]
    ray.get(gather(pieces, write_file, shared, layout, schemas))
    ray.get(
        [
            ray.remote(write_empty).remote(shared, layout, at)
            for at, rows in enumerate(layout.rows)
            if not rows
        ]
    )
    _await(export, layout)
    write_dataset_info(export, layout, known)
    return {name: export.folder(name) for name in export.written}


def _schemas(export: Export, seen: dict[int, Seen]) -> dict[int, pa.Schema]:
    """Return the schema of each folder that has rows; say what is not written as it was."""
    for note in sorted({note for one in seen.values() for note in one.notes}):
        warn(f"{note}")
    folders = np.unique(export.folder_of[list(seen)])
    return {
        int(folder): unify(one.schema for split, one in seen.items() if export.folder_of[split] == folder)
        for folder in folders
    }


def _await(export: Export, layout: CoresetFiles) -> None:
    for name in export.written:
        for folder, files in zip(layout.folders, layout.files, strict=True):
            storage.await_files(_join(export.folder(name), folder), files)


def _join(folder: str, name: str) -> str:
    return storage.join(folder, name) if name else folder


def fetch_rows(export: Export, split: int, chosen: pa.Table) -> tuple[Seen, Fetched]:
    """Read the chosen rows of one split again, with all the columns of their file."""
    chosen = chosen.sort_by("row").combine_chunks()
    place, rows = export.splits[split], chosen["row"].to_pylist()
    source = read_source_rows(place, rows)
    source = source.drop_columns([name for name in SIDE if name in source.column_names])
    lines, notes = lines_of_formats(export, place, source, chosen)
    chosen = with_side(chosen, place.path)
    for name, texts in lines.items():
        chosen = chosen.append_column(name, pa.array(texts, pa.string()))
    return Seen(source.schema, tuple(notes)), Fetched(chosen, source)


def lines_of_formats(
    export: Export, place: Split, source: pa.Table, chosen: pa.Table
) -> tuple[dict[str, list[Any]], list[str]]:
    """Return the lines of each format that is written as lines, and what could not be kept, in words."""
    lines: dict[str, list[Any]] = {}
    notes: list[str] = []
    if "jsonl" in export.config.formats and place.kind not in ("jsonl", "json"):
        lines["jsonl"], lost = json_lines(source)
        notes = [f"exports/jsonl: {one}" for one in lost]
    elif "jsonl" in export.config.formats:
        lines["jsonl"] = [line.decode() for line in json_files.own_lines(place, chosen["row"].to_pylist())]
    if shapes := [name for name in export.config.formats if name in SHAPES]:
        lines |= _shaped(export, place, chosen, shapes)
    if None in lines.get("llama_factory", ()):
        notes.append(
            "exports/llama_factory: leaves out rows that LLaMA-Factory has no place for (docs/sharing.md)"
        )
    return lines, notes


def _shaped(
    export: Export, place: Split, chosen: pa.Table, shapes: Sequence[str]
) -> dict[str, list[str | None]]:
    """Turn the chosen rows into the lines of export shapes."""
    wanted = set(chosen["row"].to_pylist())
    parsed = examples(place, export.corpus, export.formats[place.source])
    found = {one.row: one.example for one in parsed if one.row in wanted and one.example is not None}
    pairs = is_paired(export.formats[place.source])
    rows = [row | {"pairs": pairs} for row in chosen.to_pylist()]
    return {
        shape: [shaped(found[row["row"]], row, shape, export.template) for row in rows] for shape in shapes
    }


def deal_files(export: Export, layout: CoresetFiles, *fetched: Fetched) -> list[list[Fetched]]:
    """Send each row to the file of the core-set that it belongs to."""
    dealt: list[list[Fetched]] = [[] for _ in range(sum(layout.files))]
    for rows in fetched:
        folder = int(export.folder_of[rows.chosen["split"][0].as_py()])
        file = layout.file_of(folder, rows.chosen["place"].to_numpy())
        for index in np.unique(file):
            dealt[index].append(rows.take(np.flatnonzero(file == index)))
    return dealt


def write_file(
    export: Export, layout: CoresetFiles, schemas: dict[int, pa.Schema], *pieces: list[Fetched]
) -> None:
    """Write one file of the core-set in every asked format, if it has rows."""
    present = [one for piece in pieces for one in piece]
    if not present:
        return
    folder = int(export.folder_of[present[0].chosen["split"][0].as_py()])
    rows = Fetched(
        pa.concat_tables(piece.chosen for piece in present),
        pa.concat_tables(conform(piece.source, schemas[folder]) for piece in present),
    )
    place = rows.chosen["place"].to_numpy()
    number = int(place.min()) // layout.rows_per_file
    write_formats(export, rows.take(np.argsort(place)), layout.folders[folder], number)


def write_empty(export: Export, layout: CoresetFiles, folder: int) -> None:
    """Write the file without rows of a folder to which none were chosen; it has the columns of its corpus files."""
    mine = {
        split.path: split for split, at in zip(export.splits, export.folder_of, strict=True) if at == folder
    }
    schema = unify(storage.concurrently(_own_columns, mine.values()))
    write_formats(export, no_rows(export, schema), layout.folders[folder], 0)


def _own_columns(split: Split) -> pa.Schema:
    try:
        found = source_schema(split)
    except UnreadableFile:  # told when its rows were read
        found = pa.schema([])
    return pa.schema([field for field in found if field.name not in SIDE])


def no_rows(export: Export, schema: pa.Schema) -> Fetched:
    """Return what is fetched where nothing is chosen."""
    chosen = with_side(CHOSEN.empty_table(), "")
    for name in ("jsonl", *SHAPES):
        chosen = chosen.append_column(name, pa.array([], pa.string()))
    return Fetched(chosen, schema.empty_table())


def write_formats(export: Export, rows: Fetched, folder: str, number: int) -> None:
    """Write a file of the core-set, by its folder and number, in every asked format."""
    for name in export.written:
        suffix, found = content(rows, name)
        uri = coreset_file(_join(export.folder(name), folder), number, suffix)
        if isinstance(found, pa.Table):
            storage.write_table(uri, found)
        else:
            storage.write_atomic(uri, "".join(f"{line}\n" for line in found).encode())
