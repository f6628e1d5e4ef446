"""What `davir nightly` ends with: a night as lines of text."""

from collections.abc import Iterator

from davir_ray.cli.training_lines import run_lines
from davir_ray.drift.causes import CAME, WENT
from davir_ray.drift.result import Drift
from davir_ray.nightly.nights import Busy, NightRecord
from davir_ray.runs.lease import Holder, at_work
from davir_ray.storage.layout import RunLayout

SOURCES_SHOWN = 20


def night_lines(night: NightRecord | Busy) -> Iterator[str]:
    """Tell of the run, and of the drift against the night before."""
    if isinstance(night, Busy):
        yield from busy_lines(night.busy)
        return
    yield from run_lines(night)
    if not night.is_new:
        yield f"night     of {night.night.time}: nothing is new since"
    yield from (
        drift_lines(night.drift) if night.drift else ["drift     none: no night before to compare with"]
    )
    for sentence in night.past_limits:
        yield f"limit     {sentence}"


def busy_lines(holder: Holder) -> Iterator[str]:
    """Tell who is at work."""
    yield f"busy      another start is at work since {at_work(holder)}: nothing to do"


def drift_lines(drift: Drift) -> Iterator[str]:
    """Tell what came and went and why, and how ranks and scores moved."""
    rows, core_set = drift.rows, drift.core_set
    gone, new = rows.before - rows.both, rows.after - rows.both
    yield f"drift     since {drift.before}: {new:,} rows are new, {gone:,} are gone, {rows.both:,} in both"
    for change in drift.changes:
        yield f"  changed   {change.detail}"
    sizes = f"{core_set.before:,} -> {core_set.after:,} rows, {core_set.both:,} in both"
    yield f"core-set  {sizes}; {core_set.change:.1%} of the rows in either are in one alone"
    for way, words, counts in (("in", CAME, core_set.came), ("out", WENT, core_set.went)):
        for cause, count in counts.items():
            yield f"  {way:<4}{count:>10,}  {words[cause]}"
    correlation = drift.rank_correlation
    told = "not defined" if correlation is None else f"{correlation:+.4f}"
    compared = f"{drift.ranked_in_both:,} rows that both nights ranked"
    if drift.rank_correlation_rows < drift.ranked_in_both:
        compared = f"a sample of {drift.rank_correlation_rows:,} of the {compared}"
    yield f"ranks     rank correlation {told} over {compared}"
    yield "scores    lowest, deciles 1 to 9, highest"
    for source, nights in list(drift.scores.items())[:SOURCES_SHOWN]:
        for when, values in (("before", nights.before), ("after", nights.after)):
            figures = " ".join(f"{value:9.4f}" for value in values) if values else "none"
            yield f"  {source:<16} {when:<6} {figures}"
    if len(drift.scores) > SOURCES_SHOWN:
        yield f"  ... {len(drift.scores) - SOURCES_SHOWN} more sources in {RunLayout.drift}"
