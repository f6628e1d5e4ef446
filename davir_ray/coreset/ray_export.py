"""The Ray stage that writes the scored table, and the core-set in the shapes that trainers read.

    ranked parts + choices -> <run>/scored/00000.parquet ...
                           -> the chosen rows, fetched from their splits -> <run>/coreset/part-00000.parquet ...

A source row reaches the core-set unchanged: it is read again from its file, by place. Each file of the core-set is a
range of ranks, so what is written does not depend on how the corpus was cut into files.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from davir_ray import storage
from davir_ray.config import CorpusConfig, ExportConfig
from davir_ray.coreset.export import CHOSEN, RANK_COLUMN, SCORE_COLUMN, SHAPES, WRITERS, Fetched, one_a_place
from davir_ray.coreset.ray_rank import Ranked
from davir_ray.coreset.rules import Choice
from davir_ray.corpus.columns import conform, unify
from davir_ray.corpus.reading import examples, read_source_rows
from davir_ray.corpus.split import Split
from davir_ray.json_lines import write_lines
from davir_ray.ray_exchange import block_of, blocks_of, cut, gather, rows_per_block, scatter
from davir_ray.schema import SCORED
from davir_ray.store.keys import split_block, split_table

_KEPT = ("example_id", "base_loss", "rejected_base_loss")
"""Columns that the chosen rows keep as they are."""


@dataclass(frozen=True)
class Export:
    """Everything that a worker needs to write the core-set."""

    corpus: CorpusConfig
    formats: dict[str, str]
    splits: tuple[Split, ...]
    config: ExportConfig
    run_dir: str

    def folder(self, name: str) -> str:
        """Name the folder of one export format."""
        return storage.join(self.run_dir, *(["coreset"] if name == "parquet" else ["exports", name]))


def write_scored(
    ranked: Ranked, choices: Sequence[Choice], rules: Sequence[str], export: Export
) -> list[int]:
    """Write the scored table; return how many places of each split it selects."""
    task, shared = ray.remote(write_scored_part), ray.put(export)
    parts = [task.remote(shared, ranked, index, choice, rules) for index, choice in enumerate(choices)]
    places: list[int] = np.sum(ray.get(parts), axis=0).tolist()
    return places


def write_scored_part(
    export: Export, ranked: Ranked, index: int, choice: Choice, rules: Sequence[str]
) -> NDArray[np.int64]:
    """Write one part of the scored table; count the places that it selects, by split."""
    table = _with_place(ranked.part(index), export.splits)
    uri = storage.join(export.run_dir, "scored", f"{index:05d}.parquet")
    has_rank = np.asarray(table["rank"].is_valid())
    selected = np.zeros(len(table), dtype=bool)
    selected[has_rank] = choice.selected
    names = np.array([*rules, None], dtype=object)
    dropped: Any = np.full(len(table), None, dtype=object)
    dropped[has_rank] = names[choice.dropped_by]
    scored = table.append_column("selected", pa.array(selected)).append_column(
        "dropped_by", pa.array(dropped, pa.string())
    )
    storage.write_table(uri, scored.select(SCORED.names).cast(SCORED))
    write_unscored(export, table.filter(pa.array(~has_rank)), index)
    places = table.filter(pa.array(selected))["locations"].combine_chunks().flatten()
    return np.bincount(places.field("split").to_numpy(), minlength=len(export.splits))


def _with_place(table: pa.Table, splits: Sequence[Split]) -> pa.Table:
    """Add the file and the row of each row of the table, of repeats the first."""
    place = pc.list_element(table["locations"].combine_chunks(), 0)
    names = np.array([split.path for split in splits], dtype=object)
    file = pa.array(names[place.field("split").to_numpy()], pa.string())
    return table.append_column("file", file).append_column("row", place.field("row"))


def write_unscored(export: Export, table: pa.Table, index: int) -> None:
    """List the rows without a rank by file and row, for whoever wants to mend them."""
    rows = table.select(["status", "reason"]).to_pylist()
    lines = [
        {"file": export.splits[place["split"]].path, "row": place["row"]} | row
        for row, places in zip(rows, table["locations"].to_pylist(), strict=True)
        for place in places
    ]
    if lines:
        write_lines(storage.join(export.run_dir, "unscored", f"{index:05d}.jsonl"), lines)


def choose_places(
    ranked: Ranked, choices: Sequence[Choice], selected: Sequence[int], places: Sequence[int]
) -> list[Any]:
    """Deal the selected rows out to the splits that they came from: a reference to a CHOSEN table a split."""
    blocks = blocks_of(places, rows_per_block(len(choices)))
    before = [0, *accumulate(selected)]
    pieces = [
        scatter(deal_places, len(blocks), ranked, index, choice, before[index], blocks)
        for index, choice in enumerate(choices)
    ]
    return cut(pieces, by_split, blocks)


def deal_places(
    ranked: Ranked, index: int, choice: Choice, before: int, blocks: Sequence[range]
) -> list[pa.Table]:
    """Deal the rows chosen from one part to the blocks of their splits. before: how many are chosen before them."""
    table = ranked.part(index, [*_KEPT, "score", "rank", "locations"])
    chosen = _chosen(table.filter(table["rank"].is_valid()).filter(pa.array(choice.selected)), before)
    return split_table(chosen, block_of(chosen["split"].to_numpy(), blocks), len(blocks))


def by_split(block: range, *pieces: pa.Table) -> list[pa.Table]:
    """Cut the chosen rows of a block into one table a split."""
    return split_block(pa.concat_tables(pieces), block)


def _chosen(table: pa.Table, before: int) -> pa.Table:
    """List the places of selected rows: one row a place that could be exported."""
    table = table.append_column("place", pa.array(before + np.arange(len(table), dtype=np.int64)))
    locations = table["locations"].combine_chunks()
    repeat = np.repeat(np.arange(len(table)), np.asarray(locations.value_lengths().fill_null(0)))
    table = table.take(pa.array(repeat))
    places = locations.flatten()
    columns = {
        "split": places.field("split"),
        "row": places.field("row"),
        RANK_COLUMN: table["rank"],
        SCORE_COLUMN: table["score"],
    }
    rest = {name: table[name] for name in ("place", *_KEPT)}
    return pa.table({**columns, **rest}).select(CHOSEN.names).cast(CHOSEN)


def write_coreset(
    export: Export, ranked: Ranked, choices: Sequence[Choice], places: Sequence[int]
) -> dict[str, str]:
    """Write the core-set in every asked format; return the folder of each. places: see `write_scored`."""
    selected = [choice.count() for choice in choices]
    if sum(selected) == 0:
        write_formats(export, Fetched(CHOSEN.empty_table(), pa.table({})), 0)
    files = max(1, -(-sum(selected) // export.config.rows_per_file))
    fetch, shared = ray.remote(fetch_rows).options(num_returns=2), ray.put(export)
    chosen = choose_places(ranked, choices, selected, places)
    fetched: dict[int, Any] = {
        split: fetch.remote(shared, split, table) for split, table in enumerate(chosen) if places[split]
    }
    schema = unify(ray.get([schema for schema, _ in fetched.values()])) if fetched else pa.schema([])
    pieces = [
        scatter(deal_files, files, shared, files, *[fetched[split][1] for split in block if places[split]])
        for block in blocks_of(places, export.config.rows_per_file)
    ]
    written = sum(ray.get(gather(pieces, write_file, shared, schema)))
    folders: dict[str, str] = {name: export.folder(name) for name in export.config.formats}
    for folder in folders.values():
        storage.await_files(folder, written)
    return folders


def fetch_rows(export: Export, split: int, chosen: pa.Table) -> tuple[pa.Schema, Fetched]:
    """Read the chosen rows of one split again, with all the columns of their file."""
    chosen = chosen.sort_by("row").combine_chunks()
    source = read_source_rows(export.splits[split], chosen["row"].to_pylist())
    source = source.drop_columns(
        [name for name in (SCORE_COLUMN, RANK_COLUMN) if name in source.column_names]
    )
    for name in (name for name in export.config.formats if name in SHAPES):
        chosen = chosen.append_column(name, pa.array(_shaped(export, split, chosen, name), pa.string()))
    return source.schema, Fetched(chosen, source)


def _shaped(export: Export, split: int, chosen: pa.Table, shape: str) -> list[str]:
    """Turn the chosen rows into the JSON of an export shape."""
    wanted = set(chosen["row"].to_pylist())
    place = export.splits[split]
    parsed = examples(place, export.corpus, export.formats[place.source])
    found = {one.row: one.example for one in parsed if one.row in wanted and one.example is not None}
    return [
        json.dumps(SHAPES[shape](found[row["row"]], row), ensure_ascii=False) for row in chosen.to_pylist()
    ]


def deal_files(export: Export, files: int, *fetched: Fetched) -> list[list[Fetched]]:
    """Send each row to the file of the core-set that it belongs to."""
    dealt: list[list[Fetched]] = [[] for _ in range(files)]
    for rows in fetched:
        file = rows.chosen["place"].to_numpy() // export.config.rows_per_file
        for index in np.unique(file):
            dealt[index].append(rows.take(np.flatnonzero(file == index)))
    return dealt


def write_file(export: Export, schema: pa.Schema, *pieces: list[Fetched]) -> bool:
    """Write one file of the core-set in every asked format; tell whether there was anything to write."""
    present = [one for piece in pieces for one in piece]
    if not present:
        return False
    rows = Fetched(
        pa.concat_tables(piece.chosen for piece in present),
        pa.concat_tables(conform(piece.source, schema) for piece in present),
    )
    rows = rows.take(one_a_place(rows))
    write_formats(export, rows, rows.chosen["place"][0].as_py() // export.config.rows_per_file)
    return True


def write_formats(export: Export, rows: Fetched, number: int) -> None:
    """Write a file of the core-set, by its number, in every asked format."""
    for name in export.config.formats:
        suffix, content = WRITERS[name](rows)
        uri = storage.join(export.folder(name), f"part-{number:05d}.{suffix}")
        if isinstance(content, pa.Table):
            storage.write_table(uri, content)
        else:
            storage.write_atomic(uri, "".join(f"{line}\n" for line in content).encode())
