"""Two scored tables joined by row: what came into the core-set, what went out of it, and how ranks and scores moved.

scored parts -> partitions of example ids -> counts by cause
                                          -> ranks of the rows in both -> their correlation
"""

from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from davir_ray import storage
from davir_ray.cluster.ray_exchange import partitions_for, regroup, scatter
from davir_ray.drift.causes import SIDE, Moved, beside, moved
from davir_ray.drift.deciles import Wanted, joined, scores_at, sources_in, wanted_places
from davir_ray.drift.ray_ranks import RANKS, deal, rank_correlation
from davir_ray.ids import keys_of, partition_of, split_table
from davir_ray.runs.changes import changes
from davir_ray.runs.history import PastRun
from davir_ray.storage.layout import RunLayout

SCORES = ["source", "score", "rank"]
Drift = dict[str, Any]


def measure_drift(before: PastRun, after: PastRun) -> Drift:
    """Compare two finished runs; the result is plain JSON data."""
    changed = changes(before.record, after.record, before.recipe, after.recipe)
    rows, (correlation, compared) = _join(before, after, {one.what for one in changed})
    return {
        "before": before.run_id,
        "after": after.run_id,
        "changes": [{"what": one.what, "detail": one.detail} for one in changed],
        "rows": {"before": rows.before, "after": rows.after, "both": rows.both},
        "core_set": {
            "before": rows.selected_before,
            "after": rows.selected_after,
            "both": rows.selected_both,
            "change": _change(rows),
            "in": _by_cause(rows.came),
            "out": _by_cause(rows.went),
        },
        "rank_correlation": correlation,
        "ranked_in_both": compared,
        "scores": _spread(deciles_of(before), deciles_of(after)),
    }


def _join(
    before: PastRun, after: PastRun, changed: Collection[str]
) -> tuple[Moved, tuple[float | None, int]]:
    count = partitions_for(max(before.record["rows"], after.record["rows"]))
    sides = [
        [scatter(scatter_side, count, uri, count) for uri in scored_parts(run)] for run in (before, after)
    ]
    ranked = [run.record["ranked"] for run in (before, after)]
    pieces = regroup([*sides[0], *sides[1]], match, count + 1, len(sides[0]), changed, ranked[0], count)
    parts: list[Moved] = ray.get([one[0] for one in pieces])
    return sum(parts[1:], parts[0]), rank_correlation([one[1:] for one in pieces], ranked[1], count)


def scored_parts(run: PastRun) -> list[str]:
    """List the parts of a run's scored table, in rank order."""
    return storage.list_files(RunLayout(run.folder).scored, ".parquet")


def scatter_side(uri: str, partitions: int) -> list[pa.Table]:
    """Send each row of a part of a scored table to the partition of its id."""
    table = storage.read_table(uri, SIDE.names).select(SIDE.names).cast(SIDE)
    return split_table(table, partition_of(keys_of(table["example_id"]), partitions), partitions)


def match(before: int, changed: Collection[str], ranked: int, ranges: int, *pieces: pa.Table) -> list[Any]:
    """Join one partition; return what moved, and the ranks of the rows in both by ranges of the night before.

    The first `before` pieces are of that night; `ranked` rows had a rank in it.
    """
    one, other = beside(pa.concat_tables(pieces[:before]), pa.concat_tables(pieces[before:]))
    both = (one.rank > 0) & (other.rank > 0)
    ranks = pa.table([one.rank[both], other.rank[both]], schema=RANKS)
    return [moved(one, other, changed), *deal(ranks, "before", ranked, ranges)]


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


def _spread(before: dict[str, list[float]], after: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Put both nights side by side; None for a source that one of them does not have."""
    return {
        source: {"before": before.get(source), "after": after.get(source)}
        for source in sorted(before | after)
    }
