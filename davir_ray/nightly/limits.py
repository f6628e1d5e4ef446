"""When a night is a bad one."""

from collections.abc import Iterator

from davir_ray.config import NightlyConfig
from davir_ray.errors import PastLimits
from davir_ray.nightly.nights import DriftInShort, NightLine, NightRecord


def past_limits(limits: NightlyConfig, night: NightLine) -> tuple[str, ...]:
    """Name the limits that a night went past, as sentences; a limit on drift says nothing of a first night."""
    return (*_failed(limits, night), *_drifted(limits, night.drift))


def _failed(limits: NightlyConfig, night: NightLine) -> Iterator[str]:
    share = night.failed / max(night.rows, 1)
    if limits.max_failed_fraction is not None and share > limits.max_failed_fraction:
        count = f"{night.failed:,} of {night.rows:,} rows have no score ({share:.1%})"
        yield f"nightly.max_failed_fraction: {limits.max_failed_fraction}, and {count}"
    if limits.max_bad_files is not None and night.bad_files > limits.max_bad_files:
        yield f"nightly.max_bad_files: {limits.max_bad_files}, and {night.bad_files:,} files were skipped"


def _drifted(limits: NightlyConfig, drift: DriftInShort | None) -> Iterator[str]:
    if drift is None:
        return
    change, correlation = drift.coreset_change, drift.rank_correlation
    if limits.max_coreset_change is not None and change > limits.max_coreset_change:
        yield f"nightly.max_coreset_change: {limits.max_coreset_change}, and the core-set changed by {change:.3f}"
    lowest = limits.min_rank_correlation
    if lowest is not None and correlation is not None and correlation < lowest:
        yield f"nightly.min_rank_correlation: {lowest}, and the ranks correlate by {correlation:.3f}"


def check_limits(night: NightRecord) -> None:
    """Raise `PastLimits` if a night that is done went past a limit."""
    if night.past_limits:
        broken = (f"  {one}" for one in night.past_limits)
        raise PastLimits("the night is done, and went past its limits", *broken)
