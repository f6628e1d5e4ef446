"""What `davir compare` prints: runs side by side, and each with the first."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from davir_ray.corpus.split import place_text
from davir_ray.report.comparison import Alone, Compared, Comparison

ROWS_SHOWN = 5
"""Rows of each core-set alone that are named."""


def compare_lines(found: Compared) -> Iterator[str]:
    """Tell of each run, then of each pair with the first run."""
    if found.made_up:
        told = "made-up numbers, for trying a recipe; they say nothing about the rows"
        yield f"engine    hash in {found.made_up}: {told}"
    for index, run in enumerate(found.runs):
        record, mean = run.record, found.mean_tokens(index)
        lengths = "no row chosen" if mean is None else f"{mean:.1f} response tokens a row"
        chosen = f"{record.selected:,} of {record.rows:,} rows by {record.score}"
        yield f"run {index + 1:<6}{found.names[index]}: {chosen}; {lengths}; finished {run.ended_at}"
        for source, share in record.sources.items():
            yield f"  {source:<20}{share.selected:>10,} of {share.rows:,}  ({share.share_after:.1%} of the core-set)"
    for number, pair in enumerate(found.pairs, start=2):
        yield from _pair_lines(number, pair)


def _pair_lines(number: int, pair: Comparison) -> Iterator[str]:
    apart = f"{pair.change:.1%} of the rows in either are in one alone"
    yield f"1 and {number:<4}{pair.both:,} rows in both core-sets; {apart}"
    told = "not defined" if pair.correlation is None else f"{pair.correlation:+.4f}"
    yield f"ranks     rank correlation {told} over {pair.correlation_rows:,} rows that both ranked"
    for one in pair.changes:
        yield f"  changed   {one.detail}"
    yield from _alone_lines("1", str(number), pair.only[0])
    yield from _alone_lines(str(number), "1", pair.only[1])


def _alone_lines(run: str, other: str, alone: Alone) -> Iterator[str]:
    yield f"only {run:<5}{alone.rows:,} rows; what left them out of {other}:"
    for why, count in alone.why.most_common():
        yield f"  {why:<20}{count:>10,}"
    for one in alone.first[:ROWS_SHOWN]:
        rank = "no rank" if one.rank_there is None else f"rank {one.rank_there:,}"
        place = place_text(one.row["file"], one.row["row"])
        yield f"    rank {one.row['rank']:<9,} there {rank:<14} {one.why:<16} {place}"


def as_dict(found: Compared) -> dict[str, Any]:
    """Return the comparison as plain data. Runs are counted from 0; `only` has a pair's first run first."""
    runs = [
        {
            "run_id": run.run_id,
            "label": run.recipe.get("label"),
            "folder": run.folder,
            "engine": run.record.engine.type,
            "score": run.record.score,
            "rows": run.record.rows,
            "ranked": run.record.ranked,
            "selected": run.record.selected,
            "mean_tokens": found.mean_tokens(index),
        }
        for index, run in enumerate(found.runs)
    ]
    pairs = [_pair_as_dict(number, pair) for number, pair in enumerate(found.pairs, start=1)]
    return {"runs": runs, "overlaps": found.overlaps.tolist(), "pairs": pairs}


def _pair_as_dict(number: int, pair: Comparison) -> dict[str, Any]:
    return {
        "runs": [0, number],
        "both": pair.both,
        "change": pair.change,
        "correlation": pair.correlation,
        "correlation_rows": pair.correlation_rows,
        "changes": [one.tree() for one in pair.changes],
        "only": [_alone_as_dict(one) for one in pair.only],
    }


def _alone_as_dict(alone: Alone) -> dict[str, Any]:
    first = [asdict(one) for one in alone.first]
    return {"rows": alone.rows, "why": dict(alone.why), "cause": dict(alone.cause), "first": first}
