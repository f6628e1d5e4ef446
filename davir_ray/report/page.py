"""A run as a page: what was chosen and from what, whether that can be trusted, and what it looks like."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray import storage
from davir_ray.coreset.rules.choose import rule_names
from davir_ray.drift.causes import CAME, WENT
from davir_ray.drift.result import Drift
from davir_ray.errors import DamagedPart
from davir_ray.progress import warn
from davir_ray.recipe import Recipe
from davir_ray.report.alternatives import alternatives, others, overlap_with_longest
from davir_ray.report.comparison import compare, finished, parts_of
from davir_ray.report.coreset_rows import coreset_rows
from davir_ray.report.figures import Counts, Figures, Histogram, figures_of, told_rows
from davir_ray.report.html import render
from davir_ray.report.recipe_text import in_one_line, recipe_text
from davir_ray.report.shown_rows import KINDS, colour_key, shown_ranks, shown_rows
from davir_ray.runs.history import PastRun, past_run, past_runs
from davir_ray.runs.record import RunRecord
from davir_ray.runs.run import load_run_or_recipe
from davir_ray.schema import SCORABLE
from davir_ray.storage.layout import OutputLayout, RunLayout
from davir_ray.storage.sealed import read_sealed
from davir_ray.storage.typed import parsed

POINTS = 4_000
"""Rows that the plots of points show."""
NAMES_SHOWN = 30
"""Sources and groups that have a line of their own; those with the most rows."""
NAMES_CHOSEN_FROM = 500
"""Groups of the table's rows that can be chosen from a list; of more, the search field finds them."""
MOVED_SHOWN = 20


def write_report(folder: str, out: str | None = None) -> str:
    """Write the page of a finished run, into its folder or as the file `out`; return where. Raises `RecipeError`."""
    run = finished(folder)
    uri = RunLayout(run.folder).report if out is None else storage.absolute(out)
    storage.write_atomic(uri, page_of(run))
    return uri


def try_to_write_report(folder: str) -> None:
    """Write the page of a run that has just finished; if that fails the run is none the worse, and a line says so."""
    try:
        write_report(folder)
    except Exception as error:
        warn(
            f"the page of the run could not be written: {error}; `davir report {shlex.quote(folder)}` tries again"
        )


def page_of(run: PastRun) -> bytes:
    """Return the page of a finished run."""
    record, (recipe, name) = run.record, load_run_or_recipe(run.folder, ())
    told = told_rows(parts_of(run), shown_ranks(record))
    sides = cut_sides(record, recipe, told)
    figures = figures_of(parts_of(run), record.ranked, [score for side in sides for score in side])
    shown = shown_rows(run.folder, record, recipe, told)
    rows = coreset_rows(run.folder, figures.chosen.rows)
    return render(
        "run.html",
        run=record,
        title=run.title,
        rules=list(rules_of(record, recipe)),
        unranked={status: count for status, count in record.status.items() if status not in SCORABLE},
        kept=kept_whatever(record, recipe),
        **counted(figures),
        **trusted(record, recipe, figures.sample.rows),
        **since(run, name),
        shown=shown,
        colours=colour_key(shown),
        kinds=KINDS,
        table=rows.columns,
        group_list=1 < len(set(rows.columns.get("group", []))) <= NAMES_CHOSEN_FROM,
        recipe=recipe_text(recipe),
        file=f"{name}.yaml",
        command=shlex.join(["davir", "score", f"{name}.yaml"]),
        data={
            "plots": plots(record, recipe, figures, sides),
            "rows": rows.columns,
            "folder": rows.folder,
        },
    )


def counted(figures: Figures) -> dict[str, Any]:
    """Return what the page tells of all rows."""
    sources, groups = (one.largest(NAMES_SHOWN) for one in (figures.sources, figures.groups))
    return {
        "sources": sources,
        "groups": groups if any(one.name for one in groups[0]) and groups != sources else None,
        "too_many_groups": figures.groups.too_many,
        "lengths": [(what, *spread(one)) for what, one in lengths_of(figures).items()],
    }


def trusted(record: RunRecord, recipe: Recipe, sample: pa.Table | None) -> dict[str, Any]:
    """Return what the page tells of the sample of ranked rows; None is one of no rows."""
    if sample is None:
        return {"alternatives": [], "sampled": 0, "longest": None, "learnt": None}
    return {
        "alternatives": alternatives(sample, record.score, recipe.score),
        "sampled": len(sample),
        "longest": overlap_with_longest(sample),
        "learnt": learnt(sample),
    }


def since(run: PastRun, name: str) -> dict[str, Any]:
    """Return what the page tells of the run before."""
    drift = drift_of(run)
    before = previous(run, drift, name)
    compared = None if before is None else compare(before, run)
    return {"drift": drift, "previous": compared, "came": CAME, "went": WENT, "moved_shown": MOVED_SHOWN}


def rules_of(record: RunRecord, recipe: Recipe) -> Iterator[tuple[str, str, int]]:
    """Yield the name, the settings, and the number of rows left out of each rule that can leave rows out."""
    for name, rule in zip(rule_names(recipe.select), recipe.select, strict=True):
        if name in record.dropped_by:
            settings = rule.model_dump(mode="json", exclude={"type"}, exclude_defaults=True)
            yield name, in_one_line(settings), record.dropped_by[name]


def kept_whatever(record: RunRecord, recipe: Recipe) -> tuple[int, list[str]]:
    """Return how many of the chosen rows no rule may leave out, and their sources."""
    sources = sorted(kept_sources(recipe) & record.sources.keys())
    return sum(record.sources[source].selected for source in sources), sources


def kept_sources(recipe: Recipe) -> set[str]:
    """Return the sources whose rows no rule leaves out."""
    return {source for rule in recipe.select for source in rule.kept_sources}


def lengths_of(figures: Figures) -> Mapping[str, Counts]:
    """Name the two distributions of response tokens."""
    return {"ranked rows": figures.lengths, "chosen rows": figures.chosen_lengths}


def spread(lengths: Counts) -> tuple[int, float | None, list[int]]:
    """Return how many rows there are, their mean response tokens, and the 10th, 50th and 90th percentile of those."""
    count, values = int(lengths.sum()), np.arange(len(lengths))
    if not count:
        return 0, None, []
    places = np.searchsorted(np.cumsum(lengths), np.array([0.1, 0.5, 0.9]) * count)
    return count, float(lengths @ values) / count, places.tolist()


def learnt(sample: pa.Table) -> float | None:
    """Return the part of the rows that the reference finds easier than the base, 0 to 1; None without both losses."""
    base, reference = (losses(sample, name) for name in ("base_loss", "reference_loss"))
    known = ~np.isnan(base) & ~np.isnan(reference)
    return float(np.mean(reference[known] < base[known])) if known.any() else None


def losses(sample: pa.Table, name: str) -> NDArray[np.float64]:
    """Return a column of summed nats [N]; NaN where there are none."""
    return np.asarray(sample[name].fill_null(np.nan).to_numpy(), dtype=np.float64)


def plots(
    record: RunRecord, recipe: Recipe, figures: Figures, sides: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """Return what the page's script draws, by the name of the element that it draws in. sides: see `cut_sides`."""
    sample = figures.sample.rows
    if sample is None or not len(sample):
        return {}
    points = sample.slice(0, POINTS)
    drawn = {"scores": _histogram(record.score, figures.histogram, sides)}
    tokens = np.maximum(points["num_tokens"].fill_null(0).to_numpy(), 1).astype(np.float64)
    base, reference = (losses(points, name) / tokens for name in ("base_loss", "reference_loss"))
    if np.isfinite(base + reference).any():
        words = {"x": "base loss, nats a token", "y": "reference loss, nats a token"}
        drawn["losses"] = {**words, "log": False, "has_diagonal": True, **_points(points, base, reference)}
    scores = [(record.score, points["score"].to_numpy()), *others(points, record.score, recipe.score)]
    for index, (name, values) in enumerate(scores):
        words = {"x": "response tokens", "y": name}
        drawn[f"lengths-{index}"] = {
            **words,
            "log": True,
            "has_diagonal": False,
            **_points(points, tokens, values),
        }
    return drawn


def _histogram(score: str, histogram: Histogram, sides: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return the bins with one more at either end, of all rows that lie beyond."""
    step = histogram.edges[1] - histogram.edges[0]
    middles = histogram.edges[0] + step * (np.arange(len(histogram.ranked)) - 0.5)
    return {
        "kind": "histogram",
        "x": score,
        "middles": _short(middles),
        "ranked": histogram.ranked.tolist(),
        "selected": histogram.selected.tolist(),
        "cuts": [(one + other) / 2 for one, other in sides],
    }


def _points(rows: pa.Table, x: NDArray[np.float64], y: NDArray[np.float64]) -> dict[str, Any]:
    """Return points of rows that are not chosen, and of those that are; without those that lack a number."""
    selected, known = np.asarray(rows["selected"]), np.isfinite(x) & np.isfinite(y)
    sides = {"all": known & ~selected, "chosen": known & selected}
    return {"kind": "scatter"} | {name: [_short(x[at]), _short(y[at])] for name, at in sides.items()}


def _short(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{one:.5g}") for one in values.tolist()]


def cut_sides(
    record: RunRecord, recipe: Recipe, told: Mapping[int, Mapping[str, Any]]
) -> list[tuple[float, float]]:
    """Return the scores on both sides of each place where the last rule that cuts cut the ranking; none of groups.

    told: rank -> row, of rows on both sides.
    """
    named = zip(rule_names(recipe.select), recipe.select, strict=True)
    rules = [
        (name, rule.cuts) for name, rule in named if rule.cuts is not None and record.dropped_by.get(name)
    ]
    if not rules or rules[-1][1] != "ranking":
        return []
    kept = kept_sources(recipe)
    deciding = (None, rules[-1][0])
    rows = [
        row for _, row in sorted(told.items()) if row["dropped_by"] in deciding and row["source"] not in kept
    ]
    return [
        (one["score"], other["score"])
        for one, other in pairwise(rows)
        if one["selected"] != other["selected"]
    ]


def drift_of(run: PastRun) -> Drift | None:
    """Read what a night changed; None of a run that is none, or a first one."""
    uri = RunLayout(run.folder).drift
    try:
        return parsed(Drift, read_sealed(uri), uri)
    except (FileNotFoundError, DamagedPart):
        return None


def previous(run: PastRun, drift: Drift | None, name: str) -> PastRun | None:
    """Return the run of the night before, or else the latest finished one of this name before this one."""
    output = run.folder.rsplit("/", 1)[0]
    if drift is not None:
        return past_run(OutputLayout(output).run(drift.before))
    earlier = [one for one in past_runs(output, name) if one.run_id != run.run_id and one.ended < run.ended]
    return earlier[-1] if earlier else None
