"""The Ray stage that scores and ranks the whole corpus without sorting it.

splits -> scored rows -> ranges of rank keys -> <run>/ranked/00000.parquet, 00001, ... in rank order
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from davir_ray import storage
from davir_ray.config import NearDuplicatesRule, ScoreConfig
from davir_ray.coreset.rank import (
    SAMPLE_PER_RANGE,
    choose_bounds,
    ids_in,
    number,
    rank_keys,
    sample_keys,
    score_in,
    settle,
)
from davir_ray.errors import StoreError
from davir_ray.ray_exchange import Pieces, blocks_of, gather, partitions_for, scatter
from davir_ray.schema import ID, View
from davir_ray.scores.assemble import Measurements, assemble
from davir_ray.scores.score import Need, Score
from davir_ray.store.keys import split_table
from davir_ray.tokens.prepared import Prepared

LOCATION = pa.struct([("split", pa.int32()), ("row", pa.int64())])
ROWS = pa.schema(
    [
        ("example_id", ID),
        ("source", pa.string()),
        ("group", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("base_loss", pa.float64()),
        ("reference_loss", pa.float64()),
        ("rejected_base_loss", pa.float64()),
        ("num_tokens", pa.int32()),
        ("score", pa.float64()),
        ("locations", pa.list_(LOCATION)),  # where the row is in the corpus; never leaves the run's own files
        ("signature", pa.binary()),  # MinHash values, where a rule asks for them
    ]
)


@dataclass(frozen=True)
class Ranking:
    """Everything that a worker needs to score a split."""

    prepared: Prepared
    needs: tuple[Need, ...]
    score: Score
    config: ScoreConfig
    near_duplicates: NearDuplicatesRule | None
    failed: Mapping[str, Mapping[bytes, str]]

    @property
    def views(self) -> tuple[View, ...]:
        """The views whose sequences are looked at."""
        return tuple(dict.fromkeys([View.RESPONSE, *(view for _, view in self.needs)]))

    @property
    def width(self) -> int:
        """How many narrow rows (of 128 bytes) a row is as wide as: signatures are long."""
        return 1 + (self.near_duplicates.num_perm // 32 if self.near_duplicates else 0)


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
        return storage.join(self.folder, f"{index:05d}.parquet")

    def scan(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Read the rows that have a rank, in rank order, a part at a time."""
        for index in range(self.parts):
            table = self.part(index, list(dict.fromkeys([*columns, "rank"])))
            yield table.filter(table["rank"].is_valid()).select(list(columns))


def rank(ranking: Ranking, found: Mapping[str, list[Any]], folder: str) -> Ranked:
    """Score every split and write all rows in rank order under `folder`.

    `found` has, for each role, a FOUND table (see store/ray_lookup.py) a split.
    """
    rows = ranking.prepared.count_rows()
    ranges = partitions_for(sum(rows) * ranking.width)
    settled = gather(_scored(ranking, found, rows, ranges), settle_range, ranking.config.order)
    counts = ray.get([ray.remote(count_rows).remote(table) for table in settled])
    total = sum(ranked for _, ranked in counts)
    before, writes = 0, []
    result = Ranked(folder, ranges, sum(all_rows for all_rows, _ in counts), total)
    for index, (table, (_, ranked)) in enumerate(zip(settled, counts, strict=True)):
        writes.append(ray.remote(write_range).remote(table, before, total, result.uri(index)))
        before += ranked
    ray.get(writes)
    return result


def _scored(
    ranking: Ranking, found: Mapping[str, list[Any]], rows: Sequence[int], ranges: int
) -> list[Pieces]:
    """Score every split, and deal its rows into ranges of rank keys."""
    share = min(1.0, SAMPLE_PER_RANGE * ranges / max(sum(rows), 1))
    task, shared = ray.remote(score_split).options(num_returns=2), ray.put(ranking)
    scored = [
        task.remote(shared, split, share, list(found), *[tables[split] for tables in found.values()])
        for split in range(ranking.prepared.splits)
    ]
    bounds = choose_bounds(np.concatenate(ray.get([sample for _, sample in scored])), ranges)
    return [
        scatter(deal, ranges, bounds, ranking.config.order, *[scored[split][0] for split in block])
        for block in blocks_of([count * ranking.width for count in rows])
    ]


def score_split(
    ranking: Ranking, split: int, share: float, roles: Sequence[str], *found: pa.Table
) -> tuple[pa.Table, Any]:
    """Score the rows of one split; return them with a sample of their rank keys."""
    examples = ranking.prepared.examples(split)
    sequences = ranking.prepared.sequences(split, ranking.views)
    tables = dict(zip(roles, found, strict=True))
    _check_measured(ranking, sequences, tables)
    loss = {role: _losses(sequences, table) for role, table in tables.items()}
    measurements = Measurements(sequences, loss, ranking.failed)
    table = assemble(examples, measurements, ranking.needs, ranking.score, ranking.config)
    place = pa.StructArray.from_arrays(
        [pa.array(np.full(len(table), split), pa.int32()), examples["row"].combine_chunks()],
        fields=list(LOCATION),
    )
    offsets = pa.array(np.arange(len(table) + 1), pa.int32())
    table = table.append_column("locations", pa.ListArray.from_arrays(offsets, place))
    table = table.append_column("signature", _signatures(ranking, split, len(table)))
    table = table.select(ROWS.names).cast(ROWS)
    keys = rank_keys(score_in(table), ids_in(table), ranking.config.order)
    return table, sample_keys(keys, ids_in(table), share)


def _losses(sequences: pa.Table, found: pa.Table) -> NDArray[np.float64]:
    """Line up what was found with the sequences that are looked at; NaN for those that were not asked for."""
    position = sequences["position"].to_numpy()
    loss = np.full(position.max(initial=-1) + 1, np.nan)
    loss[found["position"].to_numpy()] = found["loss"].to_numpy()
    lined_up: NDArray[np.float64] = loss[position]
    return lined_up


def _check_measured(ranking: Ranking, sequences: pa.Table, found: Mapping[str, pa.Table]) -> None:
    """Raise `StoreError` for a sequence that is neither in the store nor known to have failed."""
    for role, table in found.items():
        absent = table.filter(table["loss"].is_null())["position"]
        ids = sequences.filter(pc.is_in(sequences["position"], absent.combine_chunks()))["sequence_id"]
        if any(one not in ranking.failed[role] for one in ids.to_pylist()):
            raise StoreError(
                f"measurements under {role} are gone from the store since the run began: run it again"
            )


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


def deal(bounds: Any, order: Any, *tables: pa.Table) -> list[pa.Table]:
    """Send each row to the range of its rank key."""
    table = pa.concat_tables(tables)
    keys = rank_keys(score_in(table), ids_in(table), order)
    return split_table(table, np.searchsorted(bounds, keys, side="right"), len(bounds) + 1)


def settle_range(order: Any, *pieces: pa.Table) -> pa.Table:
    """Sort one range and settle its repeats."""
    table = pa.concat_tables(pieces).combine_chunks()
    return settle(table, rank_keys(score_in(table), ids_in(table), order))


def count_rows(table: pa.Table) -> tuple[int, int]:
    """Count the rows of a range, and those of them that have a score."""
    return len(table), len(table) - table["score"].null_count


def write_range(table: pa.Table, before: int, total: int, uri: str) -> None:
    """Number the rows of a range and write it."""
    storage.write_table(uri, number(table, before, total))
