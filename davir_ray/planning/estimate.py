"""How long measuring would take, from what earlier runs took: tokens a second that an engine was busy.

    busy seconds = tokens / speed       seconds = busy seconds / engines at once
    GPU-hours    = busy seconds * GPUs an engine / 3600

Loading models, reading and ranking come on top.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from davir_ray.planning.plan import PassEstimate, TimeEstimate
from davir_ray.runs.history import PastRun


@dataclass(frozen=True)
class PastPass:
    """One model measured by one run. store: the folder of its measurements. busy: seconds over all engines."""

    store: str
    engine: tuple[str, str]
    base: tuple[str, ...]
    tokens: int
    busy: float


@dataclass(frozen=True)
class Speed:
    """Tokens a second that one engine is busy, and what this was learnt from."""

    tokens_per_second: float
    basis: str


def passes(run: PastRun) -> Iterator[PastPass]:
    """Read what a run measured in one go: of a pass that was stopped, nobody knows what its seconds were for."""
    record = run.record
    engine = (record.engine.type, record.engine.dtype)
    for label, store in record.measurements.items():
        events = [one for one in run.events if one.get("role") == label and one["event"] != "progress"]
        if [event["event"] for event in events] == ["measure", "measured"]:
            tokens, busy = events[0]["tokens_left"], events[1].get("engine_seconds", 0.0)
            yield PastPass(store, engine, record.models["base"], tokens, busy)


def speed_of(
    store: str, engine: tuple[str, str], base: Iterable[str], past: Iterable[PastPass]
) -> Speed | None:
    """Learn a speed: from passes of this very model, else of its base and kin under the same engine."""
    useful = [one for one in past if one.tokens and one.busy]
    same = [one for one in useful if one.store == store]
    kin = [one for one in useful if (one.engine, one.base) == (engine, tuple(base))]
    for found, whose in ((same, "of this model"), (kin, "of this base and models made from it")):
        if found:
            rate = sum(one.tokens for one in found) / sum(one.busy for one in found)
            return Speed(rate, f"{len(found)} earlier passes {whose} by {engine[0]} in {engine[1]}")
    return None


def estimate(tokens: int, speed: Speed, *, engines: int, gpus: int) -> PassEstimate:
    """Say what so many tokens would take. gpus: a GPU count for one engine, 0 on a CPU."""
    busy = tokens / speed.tokens_per_second
    return PassEstimate(
        tokens_per_second=round(speed.tokens_per_second, 1),
        busy_seconds=round(busy, 1),
        seconds=round(busy / engines, 1),
        gpu_hours=round(busy * gpus / 3600, 4),
        engines=engines,
        basis=speed.basis,
    )


def total(
    parts: Mapping[str, PassEstimate | None],
    warmup: PassEstimate | None = None,
    target: PassEstimate | None = None,
) -> TimeEstimate | None:
    """Sum up what is done one after the other; None if one of the models cannot be estimated."""
    known = {label: one for label, one in parts.items() if one is not None}
    if len(known) < len(parts):
        return None
    every = [*known.values(), *filter(None, (warmup, target))]
    return TimeEstimate(
        busy_seconds=round(sum(one.busy_seconds for one in every), 4),
        seconds=round(sum(one.seconds for one in every), 4),
        gpu_hours=round(sum(one.gpu_hours for one in every), 4),
        models=known,
        warmup=warmup,
        target=target,
    )
