"""How long measuring would take, from what earlier runs took: tokens a second that an engine was busy.

    busy seconds = tokens / speed       seconds = busy seconds / engines at once
    GPU-hours    = busy seconds * GPUs an engine / 3600

Loading models, reading and ranking come on top.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from davir_ray.config import WarmupConfig
from davir_ray.planning.plan import PassEstimate, TimeEstimate, Unpriced
from davir_ray.runs.history import PastRun
from davir_ray.schema import kind_of
from davir_ray.target.rows import FewShot


@dataclass(frozen=True)
class Pass:
    """What decides how fast measuring one model goes. store: the folder of its measurements. engine: type and dtype."""

    store: str
    kind: str
    engine: tuple[str, str]
    base: tuple[str, ...]

    def is_kin(self, other: "Pass") -> bool:
        """Tell whether another pass differs in no more than the model, which is made from the same base."""
        return replace(self, store=other.store) == other


@dataclass(frozen=True)
class PastPass:
    """One model measured by one run. busy: seconds over all engines."""

    made: Pass
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
            yield PastPass(Pass(store, kind_of(label), engine, record.models["base"]), tokens, busy)


def speed_of(asked: Pass, past: Iterable[PastPass], probed: Speed | None = None) -> Speed | None:
    """Learn a speed: from passes of this very model, else from a probe, else from kin."""
    useful = [one for one in past if one.tokens and one.busy]
    same = [one for one in useful if one.made.store == asked.store]
    kin = [one for one in useful if one.made.is_kin(asked)]
    if same:
        return _mean_speed(same, "of this model")
    return probed or (_mean_speed(kin, "of this base and models made from it") if kin else None)


def _mean_speed(found: list[PastPass], whose: str) -> Speed:
    rate = sum(one.tokens for one in found) / sum(one.busy for one in found)
    type, dtype = found[0].made.engine
    return Speed(rate, f"{len(found)} earlier passes {whose} by {type} in {dtype}")


def estimate(tokens: int, speed: Speed, *, engines: int, gpus: int) -> PassEstimate:
    """Say what so many tokens would take. gpus: a GPU count for one engine, 0 on a CPU."""
    busy = tokens / speed.tokens_per_second
    return PassEstimate(
        tokens_per_second=round(speed.tokens_per_second, 1),
        busy_seconds=round(busy, 4),
        seconds=round(busy / engines, 4),
        gpu_hours=round(busy * gpus / 3600, 4),
        engines=engines,
        basis=speed.basis,
    )


def warmup_estimate(tokens: int, warmup: WarmupConfig, speed: Speed, *, gpus: int) -> PassEstimate:
    """Say what a warm-up would take: its share of the corpus, once an epoch. tokens: of the whole corpus."""
    taken = round(tokens * warmup.fraction * warmup.epochs)
    return estimate(taken, speed, engines=warmup.train.num_workers, gpus=gpus)


def target_estimate(few_shot: FewShot, models: int, speed: Speed, *, gpus: int) -> PassEstimate:
    """Say what the target's rows would take, under so many models, by one engine after the other."""
    sides = [side for row in few_shot.rows for side in (row.chosen, row.rejected) if side is not None]
    return estimate(models * sum(len(side.ids) for side in sides), speed, engines=1, gpus=gpus)


def total(
    parts: Mapping[str, PassEstimate | None],
    warmup: PassEstimate | None = None,
    target: PassEstimate | None = None,
    not_priced: tuple[Unpriced, ...] = (),
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
        not_priced=not_priced,
    )
