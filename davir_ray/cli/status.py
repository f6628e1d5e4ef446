"""How far a run is, read from its files alone: it may be running on a cluster, or dead for days."""

from collections.abc import Iterator, Sequence
from time import time
from typing import Any

from davir_ray import storage
from davir_ray.errors import DamagedPart, RecipeError
from davir_ray.logprobs.kinds import LOSS
from davir_ray.progress import ago, duration, warn
from davir_ray.runs.record import RunRecord
from davir_ray.runs.run import Event, Run, holds_run, holds_training, place_of
from davir_ray.storage.layout import PassLayout
from davir_ray.storage.typed import Written
from davir_ray.store.measurements import MeasurementStore
from davir_ray.train.training_status import TrainingStatus, training_status


class PassStatus(Written):
    """One model's share of a run: what was planned, and what of it is settled (measured, or known to fail)."""

    sequences: int
    """Sequences that are settled."""
    sequences_planned: int
    """Sequences to be measured."""
    tokens: int
    """Token ids of the sequences that are settled."""
    tokens_planned: int
    """Token ids of the sequences to be measured."""
    newest_part: float | None = None
    """Seconds since the last part was written; null but for the pass that is under way."""
    rate: float | None = None
    """Tokens a second from the start of the pass to its last part, so that the rate of a dead run does not fall."""
    seconds_left: float | None = None
    """Seconds that the rest takes at this rate."""


class RunStatus(Written):
    """How far a run is, read from its files."""

    run_id: str
    """Name of the run."""
    folder: str
    """Folder of the run."""
    stage: str
    """Last event of the run, or `finished`."""
    age: float | None
    """Seconds since that event; null if there is none."""
    passes: dict[str, PassStatus]
    """Model label -> its share; empty when the run is finished."""
    record: RunRecord | None
    """Record of the run; null while it is unfinished."""
    finished: bool
    """Whether the run is finished."""
    resume: str
    """Command that takes the run up again."""

    def lines(self) -> Iterator[str]:
        """Tell all of it."""
        yield f"run       {self.run_id}  ({'finished' if self.record else 'unfinished'})"
        yield f"stage     {self.stage}; last event {ago(self.age)}"
        if self.record:
            yield f"rows      {self.record.rows:,}; {self.record.selected:,} selected"
            for role, count in self.record.measured.items():
                yield f"{role:<9} {count:,} sequences measured; {self.record.reused[role]:,} were in the store"
            return
        for role, part in self.passes.items():
            yield f"{role:<9} {_progress(part)}"
        yield f"resume    {self.resume}"

    def line(self) -> str:
        """Tell it in one line."""
        if self.record:
            text = f"{self.record.selected:,} of {self.record.rows:,} rows selected"
        else:
            text = ", ".join(
                [self.stage, *(f"{role} {_share(part):.0%}" for role, part in self.passes.items())]
            )
        return f"{self.run_id}  {'finished' if self.record else 'unfinished'}  {ago(self.age)}  {text}"


class Statuses(Written):
    """The runs and trainings that were found in a place."""

    runs: tuple[RunStatus | TrainingStatus, ...]
    """How far each is."""


def statuses(path: str) -> list[RunStatus | TrainingStatus]:
    """Look at the run or training in a folder, or at all of an output folder or a recipe. Raises `RecipeError`."""
    if (one := _status_of(path)) is not None:
        return [one]
    found = [_status_of(uri) for uri in storage.list_folders(place_of(path, "output"))]
    if not any(found):
        raise RecipeError(f"{path}: holds no run, and no folder with a run in it")
    return [one for one in found if one is not None]


def _status_of(folder: str) -> RunStatus | TrainingStatus | None:
    if holds_training(folder):
        return training_status(folder)
    return status(folder) if holds_run(folder) else None


def status(folder: str) -> RunStatus:
    """Look at one run."""
    run = Run.existing(folder)
    record = run.record(RunRecord)
    begun: Event = {"event": "begun"}
    last = next((one for one in reversed(run.events) if one["event"] != "progress"), begun)
    heard = run.events[-1]["time"] if run.events else None
    stage = f"{last['event']} {last['role']}" if "role" in last else last["event"]
    return RunStatus(
        run_id=run.run_id,
        folder=run.folder,
        stage="finished" if record else stage,
        age=None if heard is None else time() - heard,
        passes=_passes(run, last) if record is None else {},
        record=record,
        finished=record is not None,
        resume=run.resume,
    )


def _passes(run: Run, last: Event) -> dict[str, PassStatus]:
    begun = {event["role"]: event for event in run.events if event["event"] == "measure"}
    plans = {role: _plan(PassLayout(run.paths.pass_of(role)).plan) for role in begun}
    return {
        role: one
        for role, plan in plans.items()
        if plan is not None and (one := _pass(begun[role], plan, under_way=begun[role] is last)) is not None
    }


def _plan(uri: str) -> list[dict[str, Any]] | None:
    """Read the chunks of a plan; None where there is none, since the run has ended meanwhile, or a damaged one."""
    try:
        chunks: list[dict[str, Any]] = storage.read_table(uri, ["name", "sequences", "tokens"]).to_pylist()
    except (FileNotFoundError, DamagedPart):
        return None
    return chunks


def _pass(event: Event, chunks: list[dict[str, Any]], *, under_way: bool) -> PassStatus | None:
    """Compare the chunks of a pass with the store; `event` is its latest start. None if the store is damaged."""
    store = MeasurementStore(event["store"], LOSS)  # of any kind: only names are listed
    try:
        settled = store.chunks_done()
    except DamagedPart as damage:
        warn(f"{damage}; how far the run is, is not known until it goes on")
        return None
    done = [chunk for chunk in chunks if chunk["name"] in settled]
    sequences, sequences_planned = (sum(one["sequences"] for one in some) for some in (done, chunks))
    tokens, tokens_planned = (sum(one["tokens"] for one in some) for some in (done, chunks))
    settled_so_far = PassStatus(
        sequences=sequences,
        sequences_planned=sequences_planned,
        tokens=tokens,
        tokens_planned=tokens_planned,
    )
    newest = max((part.modified for part in store.parts()), default=0.0)
    measured = event["tokens_left"] - (tokens_planned - tokens)
    if not under_way or measured <= 0 or newest <= event["time"]:
        return settled_so_far
    rate = measured / (newest - event["time"])
    left = (tokens_planned - tokens) / rate
    return settled_so_far.model_copy(
        update={"newest_part": time() - newest, "rate": rate, "seconds_left": left}
    )


def status_lines(found: Sequence[RunStatus | TrainingStatus], path: str) -> Iterator[str]:
    """Tell all of the run that a path names, or a line of each run that was found there."""
    for one in found:
        yield from one.lines() if one.folder == storage.real_folder(path) else [one.line()]


def _progress(one: PassStatus) -> str:
    text = f"{one.sequences:,} of {one.sequences_planned:,} sequences, {one.tokens:,} of {one.tokens_planned:,} tokens"
    text += f" ({_share(one):.0%})"
    if one.rate is None or one.seconds_left is None or one.newest_part is None:
        return text
    speed = f"{one.rate:,.0f} tokens/s, {duration(one.seconds_left)} left"
    return f"{text}; {speed}; last part {ago(one.newest_part)}"


def _share(one: PassStatus) -> float:
    return one.tokens / max(one.tokens_planned, 1)
