"""Two scored tables joined by row: what came into the core-set, what went out of it, and how ranks and scores moved.

scored parts -> partitions of example ids -> counts by cause
                                          -> ranks of the rows in both -> a sample -> their correlation
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from davir_ray import storage
from davir_ray.cluster.ray_exchange import partitions_for, regroup, scatter
from davir_ray.coreset.rank_correlation import SAMPLE_ROWS, RankSample
from davir_ray.drift.causes import SIDE, Moved, beside, moved
from davir_ray.drift.deciles import Wanted, joined, scores_at, sources_in, wanted_places
from davir_ray.drift.result import CoreSetsCompared, Drift, RowsCompared, ScoresCompared
from davir_ray.ids import column_of, keys_of, partition_of, split_table
from davir_ray.runs.changes import changes
from davir_ray.runs.history import PastRun
from davir_ray.schema import ID
from davir_ray.storage.layout import RunLayout

SCORES = ["source", "score", "rank"]
RANKS = pa.schema([("example_id", ID), ("before", pa.int64()), ("after", pa.int64())])


def measure_drift(before: PastRun, after: PastRun) -> Drift:
    """Compare two finished runs."""
    changed = changes(before.record, after.record, before.recipe, after.recipe)
    rows, compared, sample = _join(before, after, {one.what for one in changed})
    return Drift(
        before=before.run_id,
        after=after.run_id,
        changes=changed,
        rows=RowsCompared(before=rows.before, after=rows.after, both=rows.both),
        core_set=CoreSetsCompared(
            before=rows.selected_before,
            after=rows.selected_after,
            both=rows.selected_both,
            change=_change(rows),
            came=_by_cause(rows.came),
            went=_by_cause(rows.went),
        ),
        rank_correlation=sample.correlation(),
        rank_correlation_rows=len(sample),
        ranked_in_both=compared,
        scores=_spread(deciles_of(before), deciles_of(after)),
    )


def _join(before: PastRun, after: PastRun, changed: Collection[str]) -> tuple[Moved, int, RankSample]:
    """Return what moved, how many rows both nights ranked, and a sample of these with both ranks."""
    count = partitions_for(max(before.record.rows, after.record.rows))
    sides = [
        [scatter(scatter_side, count, uri, count) for uri in scored_parts(run)] for run in (before, after)
    ]
    pieces = regroup([*sides[0], *sides[1]], match, 3, len(sides[0]), changed)
    parts: list[Moved] = ray.get([part for part, _, _ in pieces])
    compared = sum(ray.get([ranked for _, ranked, _ in pieces]))
    return sum(parts[1:], parts[0]), compared, _sampled([lowest for _, _, lowest in pieces])


def _sampled(partitions: Sequence[Any]) -> RankSample:
    """Put the samples of the partitions of example ids together; these are in order of the ids."""
    sample = RankSample()
    for partition in partitions:
        if sample.is_full:
            break
        table = ray.get(partition)
        sample.add(keys_of(table["example_id"]), table["before"], table["after"])
    return sample


def scored_parts(run: PastRun) -> list[str]:
    """List the parts of a run's scored table, in rank order."""
    return storage.list_files(RunLayout(run.folder).scored, ".parquet")


def scatter_side(uri: str, partitions: int) -> list[pa.Table]:
    """Send each row of a part of a scored table to the partition of its id."""
    table = storage.read_table(uri, SIDE.names).select(SIDE.names).cast(SIDE)
    return split_table(table, partition_of(keys_of(table["example_id"]), partitions), partitions)


def match(before: int, changed: Collection[str], *pieces: pa.Table) -> tuple[Moved, int, pa.Table]:
    """Join one partition, of which the first `before` pieces are of the night before.

    Returns what moved, how many rows both nights ranked, and RANKS of those with the lowest ids.
    """
    one, other = beside(pa.concat_tables(pieces[:before]), pa.concat_tables(pieces[before:]))
    both = np.flatnonzero((one.rank > 0) & (other.rank > 0))
    lowest = both[:SAMPLE_ROWS]
    columns = [column_of(one.ids[lowest]), one.rank[lowest], other.rank[lowest]]
    return moved(one, other, changed), len(both), pa.table(columns, schema=RANKS)


def _change(rows: Moved) -> float:
    """Return the share of the rows in either core-set that are in one alone."""
    either = rows.selected_before + rows.selected_after - rows.selected_both
    return 1 - rows.selected_both / either if either else 0.0


def _by_cause(counts: Counter[Any]) -> dict[str, int]:
    return {str(cause): count for cause, count in sorted(counts.items())}


def deciles_of(run: PastRun) -> dict[str, list[float]]:
    """Return the deciles of the scores of each source."""
    parts = scored_parts(run)
    count, find = ray.remote(count_part), ray.remote(find_in_part)
    wanted = wanted_places(ray.get([count.remote(uri) for uri in parts]))
    return joined(ray.get([find.remote(uri, places) for uri, places in zip(parts, wanted, strict=True)]))


def count_part(uri: str) -> Counter[str]:
    """Count the ranked rows of a part by source."""
    return sources_in(_ranked(uri))


def find_in_part(uri: str, wanted: Wanted) -> dict[str, list[float]]:
    """Find some scores of a part."""
    return scores_at(_ranked(uri), wanted)


def _ranked(uri: str) -> pa.Table:
    table = storage.read_table(uri, SCORES)
    return table.filter(np.asarray(table["rank"].is_valid()))


def _spread(before: dict[str, list[float]], after: dict[str, list[float]]) -> dict[str, ScoresCompared]:
    """Put both nights side by side; None for a source that one of them does not have."""
    return {
        source: ScoresCompared(before=before.get(source), after=after.get(source))
        for source in sorted(before | after)
    }
