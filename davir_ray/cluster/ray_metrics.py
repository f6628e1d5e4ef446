"""What a run says of itself while it works, as metrics that Ray's nodes hand to Prometheus.

Ray puts `ray_` before a name and `_total` after that of a counter: `tokens` is scraped as `ray_davir_tokens_total`.
Events of a run have the same names. The driver of a run sets them, for all its engines.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from threading import Thread
from time import sleep
from typing import Any, Literal

import ray
from ray.util import metrics as instruments

PREFIX = "davir_"


@dataclass(frozen=True)
class Metric:
    """One metric. by: the label beside `run` that tells its series apart. meaning: with the unit."""

    name: str
    kind: Literal["counter", "gauge"]
    by: Literal["role", "status"]
    meaning: str

    @property
    def scraped_as(self) -> str:
        """The name by which Prometheus knows it."""
        return f"ray_{PREFIX}{self.name}" + ("_total" if self.kind == "counter" else "")


METRICS = (
    Metric("sequences", "counter", "role", "Sequences that engines measured: rows under a view."),
    Metric("tokens", "counter", "role", "Token ids that engines read."),
    Metric("counted_tokens", "counter", "role", "Of these, the tokens whose losses count."),
    Metric("tokens_per_second", "gauge", "role", "Token ids a second, over all engines of the pass."),
    Metric("engine_seconds", "counter", "role", "Seconds in which engines measured, over all engines."),
    Metric("engine_restarts", "counter", "role", "Processes of engines that died, stalled or were lost."),
    Metric("retried_sequences", "counter", "role", "Sequences whose measuring was begun once more."),
    Metric("missing_sequences", "gauge", "role", "Sequences that are still to be measured."),
    Metric("reuse_share", "gauge", "role", "Part of the sequences that the store held already, 0 to 1."),
    Metric("rows", "gauge", "status", "Rows of the corpus, by what became of them."),
)
"""Every metric. `role` is the label of a model's pass: `base`, `reference`, `base-token_loss`."""

REFRESH_SECONDS = 1.0
"""Ray forgets a gauge that was not set since its last report, which it makes every ten seconds, or every second."""

_gauges: dict[tuple[Metric, str, str], float] = {}
_BY_NAME = {one.name: one for one in METRICS}


def publish(run: str, label: str, values: Mapping[str, float]) -> None:
    """Set gauges and raise counters, by the names in `METRICS`. label: the role or the status that they are of."""
    for name, value in values.items():
        metric = _BY_NAME[name]
        tags = _tags(metric, run, label)
        if metric.kind == "gauge":
            _gauges[metric, run, label] = value
            _instrument(metric).set(value, tags)
            _keep_gauges()
        elif value:  # Ray refuses to raise a counter by nothing
            _instrument(metric).inc(value, tags)


def _tags(metric: Metric, run: str, label: str) -> dict[str, str]:
    """Return the labels of a series; Ray takes no others than of ASCII, so what else is in a name is spelt out."""
    return {"run": run.encode("unicode_escape").decode("ascii"), metric.by: label}


@cache
def _instrument(metric: Metric) -> Any:
    """Return what Ray counts with: one of a name in a process."""
    kind = instruments.Counter if metric.kind == "counter" else instruments.Gauge
    return kind(PREFIX + metric.name, description=metric.meaning, tag_keys=("run", metric.by))


@cache
def _keep_gauges() -> None:
    """Set all gauges again and again, in a thread, for as long as this process is on a cluster."""
    Thread(target=_set_again, name="gauges", daemon=True).start()


def _set_again() -> None:
    while True:
        sleep(REFRESH_SECONDS)
        for (metric, run, label), value in list(_gauges.items()):
            if ray.is_initialized():
                _instrument(metric).set(value, _tags(metric, run, label))
