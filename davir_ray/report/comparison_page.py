"""Runs side by side as a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from davir_ray import storage
from davir_ray.report.comparison import Alone, Apart, Compared, parts_of
from davir_ray.report.figures import Counts, more_lengths, scan
from davir_ray.report.html import render
from davir_ray.runs.history import PastRun
from davir_ray.runs.rows import with_texts
from davir_ray.runs.run import load_run_or_recipe

BINS = 40
TEXTS = 10
"""Rows of each core-set alone whose text is shown."""


def write_comparison(found: Compared, out: str) -> str:
    """Write a comparison as the file `out`; return where."""
    uri = storage.absolute(out)
    storage.write_atomic(uri, comparison_page(found))
    return uri


def comparison_page(found: Compared) -> bytes:
    """Return the page of a comparison."""
    pairs = [
        (pair, [texts_of(run, alone) for run, alone in zip((pair.one, pair.other), pair.only, strict=True)])
        for pair in found.pairs
    ]
    sources = sorted({name for run in found.runs for name in run.record.sources})
    return render(
        "comparison.html",
        found=found,
        pairs=pairs,
        sources=sources,
        overlaps=found.overlaps.tolist(),
        means=[found.mean_tokens(index) for index in range(len(found.runs))],
        data={"plots": {"lengths": lengths_of(found.runs)}},
    )


def texts_of(run: PastRun, alone: Alone) -> list[tuple[Apart, Mapping[str, Any]]]:
    """Return the first rows that a core-set has alone, with their text."""
    first, recipe = alone.first[:TEXTS], load_run_or_recipe(run.folder, ())[0]
    texts = with_texts(recipe.corpus, run.record.formats, [one.row for one in first])
    return list(zip(first, texts, strict=True))


def lengths_of(runs: Sequence[PastRun]) -> dict[str, Any]:
    """Return the part of each core-set that lies in each bin of response tokens, for the page's script."""
    counts = [chosen_lengths(run) for run in runs]
    edges = np.unique(np.geomspace(1, max(2, *map(len, counts)), BINS).astype(np.int64))
    named = [
        (f"{index}: {run.run_id}", shares_within(counts[index - 1], edges))
        for index, run in enumerate(runs, start=1)
    ]
    return {"kind": "lines", "x": "response tokens", "xs": edges[:-1].tolist(), "named": named}


def chosen_lengths(run: PastRun) -> Counts:
    """Return how many rows of a core-set have each number of response tokens."""
    lengths = np.zeros(0, dtype=np.int64)
    for table in scan(parts_of(run), ("num_tokens", "selected")):
        lengths = more_lengths(lengths, table.filter(table["selected"]))
    return lengths


def shares_within(lengths: Counts, edges: Counts) -> list[float]:
    """Return the part of the rows that lies from each edge up to the next; the last bin has its upper end, too."""
    counted, _ = np.histogram(np.arange(len(lengths)), edges, weights=lengths)
    return [round(one / max(int(lengths.sum()), 1), 6) for one in counted.tolist()]
