"""The Ray stage that scores and ranks the whole corpus without sorting it.

    splits -> <run>/ranked/scored/00000.parquet ...   the rows of some splits, in order of their rank keys
           -> <run>/ranked/marked/00000.parquet ...  a range of rank keys of all of them
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
from davir_ray.config import ScoreConfig
from davir_ray.coreset.rank import (
    SAMPLE_PER_RANGE,
    Order,
    choose_bounds,
    ids_in,
    keys_in,
    mark_repeats,
    number,
    sample_keys,
)
from davir_ray.coreset.rules.rule import TokenColumn
from davir_ray.errors import StalePlan
from davir_ray.schema import ID, Need, View
from davir_ray.scores.assemble import Asked, Measurements, assemble, measured_of, subtask_column
from davir_ray.scores.score import Score, Surveyed, TargetMeasured
from davir_ray.storage.layout import RankedLayout, numbered
from davir_ray.store.prepared import Prepared
from davir_ray.store.ray_lookup import FOUND

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
    ]
)


@dataclass(frozen=True)
class Ranking:
    """Everything that a worker needs to score a split.

    token_columns: what is made for the selection rules. files: the file of each split.
    """

    prepared: Prepared
    needs: tuple[Need, ...]
    score: Score
    config: ScoreConfig
    target: TargetMeasured | None
    failed: Mapping[Asked, Mapping[bytes, str]]
    token_columns: tuple[TokenColumn, ...]
    files: tuple[str, ...]

    @property
    def views(self) -> tuple[View, ...]:
        """The views whose sequences are looked at."""
        return tuple(dict.fromkeys([View.RESPONSE, *(need.view for need in self.needs)]))

    @property
    def width(self) -> int:
        """How many narrow rows (of 128 bytes) a row is as wide as: what rules have made is long."""
        return 1 + sum(column.size for column in self.token_columns) // 128

    @property
    def rows(self) -> pa.Schema:
        """The columns of a scored row: ROWS, the scores of subtasks, and what is made for the rules."""
        of_subtasks = [(name, pa.float64()) for name in self.subtask_columns]
        return pa.schema(
            [*ROWS, *of_subtasks, *((column.name, pa.binary()) for column in self.token_columns)]
        )

    @property
    def subtask_columns(self) -> list[str]:
        """The columns with a row's score for each subtask of the target."""
        told_apart = self.target is not None and self.score.parts is not None
        return [subtask_column(name) for name in self.target.subtasks] if told_apart else []  # type: ignore[union-attr]


@dataclass(frozen=True)
class ScoredRows:
    """The rows of some splits (`Ranking.rows`) in a file, in order of their rank keys.

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
    """All rows in rank order, on disk: `folder`/00000.parquet and on. `Ranking.rows` with rank and percentile."""

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


def rank(ranking: Ranking, found: Mapping[Asked, list[Any]], rows: Sequence[int], folder: str) -> Ranked:
    """Score every split and write all rows in rank order under `folder`.

    found: for each kind and model, a FOUND table (see store/ray_lookup.py) a split. rows: how many each split has.
    """
    widths = [count * ranking.width for count in rows]
    ranges = partitions_for(sum(widths))
    share = min(1.0, SAMPLE_PER_RANGE * ranges / max(sum(rows), 1))
    surveyed = survey(ranking, found, blocks_of(widths))
    blocks, samples = zip(*_scored(ranking, found, surveyed, blocks_of(widths), share, folder), strict=True)
    bounds = choose_bounds(np.concatenate(samples), ranges)
    counts = _marked(ranking, blocks, bounds, folder)
    storage.delete(RankedLayout(folder).scored)
    ranked = Ranked(folder, ranges, *map(sum, zip(*counts, strict=True)))
    write, before = ray.remote(write_range), [0, *accumulate(scored for _, scored in counts)]
    ray.get([write.remote(ranked, index, before[index]) for index in range(ranges)])
    storage.delete(RankedLayout(folder).marked)
    return ranked


def survey(ranking: Ranking, found: Mapping[Asked, list[Any]], blocks: Sequence[range]) -> Surveyed:
    """Find what the score has to know of the whole corpus, in rounds (see `scores.score.Survey`)."""
    if ranking.score.survey is None:
        return ()
    task, shared, asked = ray.remote(survey_block), ray.put(ranking), list(found)
    surveyed: Surveyed = ()
    for _ in range(ranking.score.survey.rounds):
        refs = [task.remote(shared, surveyed, block, asked, *_tables(found, block)) for block in blocks]
        surveyed = (*surveyed, sum(ray.get(refs)))
    return surveyed


def survey_block(
    ranking: Ranking, surveyed: Surveyed, splits: range, asked: Sequence[Asked], *found: pa.Table
) -> NDArray[np.int64]:
    """Count for one round of a survey; the last arguments are as those of `score_block`."""
    assert ranking.score.survey is not None
    counts = []
    for split, tables in _by_split(splits, asked, found):
        examples, measurements = _measurements(ranking, split, tables)
        measured = measured_of(examples, measurements, ranking.needs, ranking.target)
        counts.append(ranking.score.survey.count(measured, ranking.config, surveyed))
    return np.asarray(np.sum(counts, axis=0), dtype=np.int64)


def _tables(found: Mapping[Asked, list[Any]], block: range) -> list[Any]:
    return [found[asked][split] for asked in found for split in block]


def _by_split(
    splits: range, asked: Sequence[Asked], found: Sequence[pa.Table]
) -> Iterator[tuple[int, dict[Asked, pa.Table]]]:
    for index, split in enumerate(splits):
        yield split, {one: found[len(splits) * at + index] for at, one in enumerate(asked)}


def _scored(
    ranking: Ranking,
    found: Mapping[Asked, list[Any]],
    surveyed: Surveyed,
    blocks: Sequence[range],
    share: float,
    folder: str,
) -> list[tuple[ScoredRows, NDArray[np.bytes_]]]:
    """Score every split, a block of them at a time."""
    task, shared, asked = ray.remote(score_block), ray.put(ranking), list(found)
    scored = RankedLayout(folder).scored
    refs = [
        task.remote(shared, surveyed, block, share, numbered(scored, index), asked, *_tables(found, block))
        for index, block in enumerate(blocks)
    ]
    done: list[tuple[ScoredRows, NDArray[np.bytes_]]] = ray.get(refs)
    return done


def _marked(
    ranking: Ranking, blocks: tuple[ScoredRows, ...], bounds: NDArray[np.bytes_], folder: str
) -> list[tuple[int, int]]:
    """Mark the repeats of every range; see `mark_range`."""
    task, shared, files = ray.remote(mark_range), ray.put(blocks), ray.put(ranking.files)
    uris = [numbered(RankedLayout(folder).marked, index) for index in range(len(bounds) + 1)]
    done: list[tuple[int, int]] = ray.get(
        [
            task.remote(shared, bounds, index, ranking.config.order, files, uri)
            for index, uri in enumerate(uris)
        ]
    )
    return done


def score_block(
    ranking: Ranking,
    surveyed: Surveyed,
    splits: range,
    share: float,
    uri: str,
    asked: Sequence[Asked],
    *found: pa.Table,
) -> tuple[ScoredRows, NDArray[np.bytes_]]:
    """Score the rows of some splits and write them; return where they are, and a sample of their rank keys.

    found: the FOUND tables of the splits of the first kind and model that were asked for, of the second, ...
    """
    tables = [
        score_split(ranking, split, tables, surveyed) for split, tables in _by_split(splits, asked, found)
    ]
    table = pa.concat_tables(tables).combine_chunks()
    keys = keys_in(table, ranking.config.order)
    return ScoredRows.write(uri, table, keys), sample_keys(keys, ids_in(table), share)


def score_split(
    ranking: Ranking, split: int, found: Mapping[Asked, pa.Table], surveyed: Surveyed
) -> pa.Table:
    """Score the rows of one split (ROWS)."""
    examples, measurements = _measurements(ranking, split, found)
    measured = measured_of(examples, measurements, ranking.needs, ranking.target)
    table = assemble(examples, measurements, measured, ranking.score, ranking.config, surveyed)
    table = table.append_column("split", pa.array(np.full(len(table), split), pa.int32()))
    table = table.append_column("row", examples["row"])
    for column, values in _made_of_tokens(ranking, split, len(table)).items():
        table = table.append_column(column, values)
    return table.select(ranking.rows.names).cast(ranking.rows)


def _measurements(
    ranking: Ranking, split: int, found: Mapping[Asked, pa.Table]
) -> tuple[pa.Table, Measurements]:
    """Return the EXAMPLES of a split, and what was measured of its sequences."""
    sequences = ranking.prepared.sequences(split, ranking.views)
    _check_measured(ranking, sequences, found)
    columns = {asked: _lined_up(sequences, table) for asked, table in found.items()}
    return ranking.prepared.examples(split), Measurements(sequences, columns, ranking.failed)


def _lined_up(sequences: pa.Table, found: pa.Table) -> pa.Table:
    """Line up what was found with the sequences that are looked at; nulls for those that were not asked for."""
    position = sequences["position"].to_numpy()
    place = np.full(position.max(initial=-1) + 1, -1)
    place[found["position"].to_numpy()] = np.arange(len(found))
    index = place[position]
    return found.drop_columns(FOUND.names).take(pa.array(index, mask=index < 0))


def _check_measured(ranking: Ranking, sequences: pa.Table, found: Mapping[Asked, pa.Table]) -> None:
    """Raise `StalePlan` for a sequence that is neither in the store nor known to have failed."""
    for (kind, model), table in found.items():
        absent = table.filter(pc.invert(table["held"]))["position"]
        ids = sequences.filter(pc.is_in(sequences["position"], absent.combine_chunks()))["sequence_id"]
        if any(one not in ranking.failed[kind, model] for one in ids.to_pylist()):
            raise StalePlan(f"measurements under {model} are gone from the store since the run began")


def _made_of_tokens(ranking: Ranking, split: int, rows: int) -> dict[str, pa.Array]:
    """Return the columns that are made for the rules [rows]; null for a row without tokens."""
    if not ranking.token_columns:
        return {}
    tokens = ranking.prepared.tokens(split, ["example", "view", "ids"]).to_pylist()
    responses = [row for row in tokens if row["view"] == View.RESPONSE]
    ids = [np.array(row["ids"], dtype=np.int32) for row in responses]
    made = {}
    for column in ranking.token_columns:
        values: list[bytes | None] = [None] * rows
        for row, value in zip(responses, column.make(ids), strict=True):
            values[row["example"]] = value
        made[column.name] = pa.array(values, pa.binary())
    return made


def mark_range(
    blocks: tuple[ScoredRows, ...], bounds: Any, index: int, order: Order, files: tuple[str, ...], uri: str
) -> tuple[int, int]:
    """Write one range, sorted and with its repeats marked; count its rows, and those of them that have a score."""
    pieces = storage.concurrently(lambda block: block.within(bounds, index, order), blocks)
    table = pa.concat_tables(pieces).combine_chunks()
    table = mark_repeats(table, keys_in(table, order), files)
    storage.write_table(uri, table)
    return len(table), len(table) - table["score"].null_count


def write_range(ranked: Ranked, index: int, before: int) -> None:
    """Number the rows of a range and write it. before: how many rows with a rank are in the ranges before it."""
    table = storage.read_table(numbered(RankedLayout(ranked.folder).marked, index))
    storage.write_table(ranked.uri(index), number(table, before, ranked.ranked))
