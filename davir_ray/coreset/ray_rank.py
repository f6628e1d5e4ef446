"""The Ray stage that scores and ranks the whole corpus without sorting it.

    splits -> <run>/ranked/scored/00000.parquet ...   the rows of some splits, in order of their rank keys
           -> <run>/ranked/settled/00000.parquet ...  a range of rank keys of all of them
           -> <run>/ranked/00000.parquet ...          the same rows with their ranks

Rows go from one step to the next through files, not through Ray's object store: these rows are wide, each step takes
all of what the one before it made, and what does not fit into the store comes back from disk at a crawl.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from davir_ray import storage
from davir_ray.cluster.ray_exchange import blocks_of, partitions_for
from davir_ray.config import NearDuplicatesRule, ScoreConfig
from davir_ray.coreset.rank import (
    SAMPLE_PER_RANGE,
    Order,
    choose_bounds,
    ids_in,
    keys_in,
    number,
    sample_keys,
    settle,
)
from davir_ray.errors import StalePlan
from davir_ray.schema import ID, Need, View
from davir_ray.scores.assemble import Measurements, assemble
from davir_ray.scores.score import Score
from davir_ray.storage.layout import RankedLayout, numbered
from davir_ray.store.prepared import Prepared

ROWS_PER_GROUP = 8192
"""Rows that are read together, of which a range of 100 blocks or more wants about as many."""

ROWS = pa.schema(
    [
        ("example_id", ID),
        ("id", pa.string()),
        ("split", pa.int32()),  # where the row is in the corpus: an index into the listing's splits,
        ("row", pa.int64()),  # and the position in the file
        ("source", pa.string()),
        ("group", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("base_loss", pa.float64()),
        ("reference_loss", pa.float64()),
        ("frozen_chosen_loss", pa.float64()),  # of the completions that `trl_frozen` exports
        ("frozen_rejected_loss", pa.float64()),
        ("num_tokens", pa.int32()),
        ("score", pa.float64()),
        ("signature", pa.binary()),  # MinHash values, where a rule asks for them
    ]
)


@dataclass(frozen=True)
class Ranking:
    """Everything that a worker needs to score a split. files: the file of each split."""

    prepared: Prepared
    needs: tuple[Need, ...]
    score: Score
    config: ScoreConfig
    near_duplicates: NearDuplicatesRule | None
    failed: Mapping[str, Mapping[bytes, str]]
    files: tuple[str, ...]

    @property
    def views(self) -> tuple[View, ...]:
        """The views whose sequences are looked at."""
        return tuple(dict.fromkeys([View.RESPONSE, *(view for _, view in self.needs)]))

    @property
    def width(self) -> int:
        """How many narrow rows (of 128 bytes) a row is as wide as: signatures are long."""
        return 1 + (self.near_duplicates.num_perm // 32 if self.near_duplicates else 0)


@dataclass(frozen=True)
class ScoredRows:
    """The rows of some splits (ROWS) in a file, in order of their rank keys.

    starts: the key of the first row of each row group.
    """

    uri: str
    starts: NDArray[np.bytes_]

    @classmethod
    def write(cls, uri: str, table: pa.Table, keys: NDArray[np.bytes_]) -> "ScoredRows":
        """Sort rows by their rank keys and write them."""
        order = np.argsort(keys, kind="stable")
        storage.write_table(uri, table.take(pa.array(order)), ROWS_PER_GROUP)
        return cls(uri, keys[order[::ROWS_PER_GROUP]])

    def within(self, bounds: NDArray[np.bytes_], index: int, order: Order) -> pa.Table:
        """Read the rows of one range: those with bounds[index - 1] <= key < bounds[index]."""
        # Keys that equal the lower bound may begin in the row group before the one that starts with it.
        first = max(0, int(np.searchsorted(self.starts, bounds[index - 1])) - 1) if index else 0
        stop = int(np.searchsorted(self.starts, bounds[index])) if index < len(bounds) else len(self.starts)
        table = storage.read_row_groups(self.uri, range(first, stop))
        return table.filter(pa.array(np.searchsorted(bounds, keys_in(table, order), side="right") == index))


@dataclass(frozen=True)
class Ranked:
    """All rows in rank order, on disk: `folder`/00000.parquet and on. ROWS with rank and percentile."""

    folder: str
    parts: int
    rows: int
    ranked: int

    def part(self, index: int, columns: list[str] | None = None) -> pa.Table:
        """Read one part, or some of its columns."""
        return storage.read_table(self.uri(index), columns)

    def uri(self, index: int) -> str:
        """Name one part."""
        return numbered(self.folder, index)

    def scan(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Read the rows that have a rank, in rank order, a part at a time."""
        for index in range(self.parts):
            table = self.part(index, list(dict.fromkeys([*columns, "rank"])))
            yield table.filter(table["rank"].is_valid()).select(list(columns))


def rank(ranking: Ranking, found: Mapping[str, list[Any]], rows: Sequence[int], folder: str) -> Ranked:
    """Score every split and write all rows in rank order under `folder`.

    `found` has, for each role, a FOUND table (see store/ray_lookup.py) a split. rows: how many each split has.
    """
    widths = [count * ranking.width for count in rows]
    ranges = partitions_for(sum(widths))
    share = min(1.0, SAMPLE_PER_RANGE * ranges / max(sum(rows), 1))
    blocks, samples = zip(*_scored(ranking, found, blocks_of(widths), share, folder), strict=True)
    bounds = choose_bounds(np.concatenate(samples), ranges)
    counts = _settled(ranking, blocks, bounds, folder)
    storage.delete(RankedLayout(folder).scored)
    ranked = Ranked(folder, ranges, *map(sum, zip(*counts, strict=True)))
    write, before = ray.remote(write_range), [0, *accumulate(scored for _, scored in counts)]
    ray.get([write.remote(ranked, index, before[index]) for index in range(ranges)])
    storage.delete(RankedLayout(folder).settled)
    return ranked


def _scored(
    ranking: Ranking, found: Mapping[str, list[Any]], blocks: Sequence[range], share: float, folder: str
) -> list[tuple[ScoredRows, NDArray[np.bytes_]]]:
    """Score every split, a block of them at a time."""
    task, shared, roles = ray.remote(score_block), ray.put(ranking), list(found)
    scored, refs = RankedLayout(folder).scored, []
    for index, block in enumerate(blocks):
        tables = [found[role][split] for role in roles for split in block]
        refs.append(task.remote(shared, block, share, numbered(scored, index), roles, *tables))
    done: list[tuple[ScoredRows, NDArray[np.bytes_]]] = ray.get(refs)
    return done


def _settled(
    ranking: Ranking, blocks: tuple[ScoredRows, ...], bounds: NDArray[np.bytes_], folder: str
) -> list[tuple[int, int]]:
    """Settle every range; see `settle_range`."""
    task, shared, files = ray.remote(settle_range), ray.put(blocks), ray.put(ranking.files)
    uris = [numbered(RankedLayout(folder).settled, index) for index in range(len(bounds) + 1)]
    done: list[tuple[int, int]] = ray.get(
        [
            task.remote(shared, bounds, index, ranking.config.order, files, uri)
            for index, uri in enumerate(uris)
        ]
    )
    return done


def score_block(
    ranking: Ranking, splits: range, share: float, uri: str, roles: Sequence[str], *found: pa.Table
) -> tuple[ScoredRows, NDArray[np.bytes_]]:
    """Score the rows of some splits and write them; return where they are, and a sample of their rank keys.

    found: the FOUND tables of the splits under the first role, under the second, ...
    """
    tables = [
        score_split(ranking, split, {role: found[len(splits) * at + index] for at, role in enumerate(roles)})
        for index, split in enumerate(splits)
    ]
    table = pa.concat_tables(tables).combine_chunks()
    keys = keys_in(table, ranking.config.order)
    return ScoredRows.write(uri, table, keys), sample_keys(keys, ids_in(table), share)


def score_split(ranking: Ranking, split: int, found: Mapping[str, pa.Table]) -> pa.Table:
    """Score the rows of one split (ROWS)."""
    examples = ranking.prepared.examples(split)
    sequences = ranking.prepared.sequences(split, ranking.views)
    _check_measured(ranking, sequences, found)
    loss = {role: _losses(sequences, table) for role, table in found.items()}
    measurements = Measurements(sequences, loss, ranking.failed)
    table = assemble(examples, measurements, ranking.needs, ranking.score, ranking.config)
    table = table.append_column("split", pa.array(np.full(len(table), split), pa.int32()))
    table = table.append_column("row", examples["row"])
    table = table.append_column("signature", _signatures(ranking, split, len(table)))
    return table.select(ROWS.names).cast(ROWS)


def _losses(sequences: pa.Table, found: pa.Table) -> NDArray[np.float64]:
    """Line up what was found with the sequences that are looked at; NaN for those that were not asked for."""
    position = sequences["position"].to_numpy()
    loss = np.full(position.max(initial=-1) + 1, np.nan)
    loss[found["position"].to_numpy()] = found["loss"].to_numpy()
    lined_up: NDArray[np.float64] = loss[position]
    return lined_up


def _check_measured(ranking: Ranking, sequences: pa.Table, found: Mapping[str, pa.Table]) -> None:
    """Raise `StalePlan` for a sequence that is neither in the store nor known to have failed."""
    for role, table in found.items():
        absent = table.filter(table["loss"].is_null())["position"]
        ids = sequences.filter(pc.is_in(sequences["position"], absent.combine_chunks()))["sequence_id"]
        if any(one not in ranking.failed[role] for one in ids.to_pylist()):
            raise StalePlan(f"measurements under {role} are gone from the store since the run began")


def _signatures(ranking: Ranking, split: int, rows: int) -> pa.Array:
    if ranking.near_duplicates is None:
        return pa.nulls(rows, pa.binary())
    from davir_ray.coreset.near_duplicates import signatures

    tokens = ranking.prepared.tokens(split, ["example", "view", "ids"]).to_pylist()
    responses = [row for row in tokens if row["view"] == View.RESPONSE]
    values = signatures([np.array(row["ids"], dtype=np.int32) for row in responses], ranking.near_duplicates)
    column: list[bytes | None] = [None] * rows
    for row, signature in zip(responses, values, strict=True):
        column[row["example"]] = signature.tobytes()
    return pa.array(column, pa.binary())


def settle_range(
    blocks: tuple[ScoredRows, ...], bounds: Any, index: int, order: Order, files: tuple[str, ...], uri: str
) -> tuple[int, int]:
    """Write one range, sorted and with its repeats settled; count its rows, and those of them that have a score."""
    pieces = storage.concurrently(lambda block: block.within(bounds, index, order), blocks)
    table = pa.concat_tables(pieces).combine_chunks()
    table = settle(table, keys_in(table, order), files)
    storage.write_table(uri, table)
    return len(table), len(table) - table["score"].null_count


def write_range(ranked: Ranked, index: int, before: int) -> None:
    """Number the rows of a range and write it. before: how many rows with a rank are in the ranges before it."""
    table = storage.read_table(numbered(RankedLayout(ranked.folder).settled, index))
    storage.write_table(ranked.uri(index), number(table, before, ranked.ranked))
