"""How far a run is, read from its files alone: it may be running on a cluster, or dead for days."""

from collections.abc import Iterator, Sequence
from time import time
from typing import Any

from davir_ray import storage
from davir_ray.cli.figures import as_written
from davir_ray.errors import DamagedPart, RecipeError
from davir_ray.foreign_text import printable, shortened
from davir_ray.logprobs.kinds import LOSS
from davir_ray.progress import ago, duration, warn
from davir_ray.runs.record import RunRecord
from davir_ray.runs.run import Event, Run, holds_run, holds_training, place_of
from davir_ray.storage.layout import PassLayout
from davir_ray.storage.sealed import read_object
from davir_ray.storage.typed import Written
from davir_ray.store.measurements import MeasurementStore
from davir_ray.train.training_status import Cells, TrainingStatus, training_status


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
    label: str | None = None
    """What people call it; null where nobody does."""
    score: str = ""
    """Name of the score."""
    rules: tuple[str, ...] = ()
    """The selection rules, each with its settings."""
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
        if self.label:
            yield f"label     {self.label}"
        if self.score:
            yield f"chosen by {self.score}: {', '.join(self.rules)}"
        yield f"stage     {self.stage}; last event {ago(self.age)}"
        if self.record:
            yield f"rows      {self.record.rows:,}; {self.record.selected:,} selected"
            for role, count in self.record.measured.items():
                yield f"{role:<9} {count:,} sequences measured; {self.record.reused[role]:,} were in the store"
            return
        for role, part in self.passes.items():
            yield f"{role:<9} {_progress(part)}"
        yield f"resume    {self.resume}"

    def cells(self) -> Cells:
        """Tell it in the cells of a line."""
        if self.record:
            text = f"{self.record.selected:,} of {self.record.rows:,} rows selected"
        else:
            shares = (f"{role} {_share(part):.0%}" for role, part in self.passes.items())
            text = ", ".join([self.stage, *shares])
        state = "finished" if self.record else "unfinished"
        chosen_by = f"{self.score}: {', '.join(self.rules)}" if self.score else ""
        return self.run_id, self.label or "", state, ago(self.age), chosen_by, text


class Statuses(Written):
    """The runs and trainings that were found in a place."""

    runs: tuple[RunStatus | TrainingStatus, ...]
    """How far each is."""


def statuses(path: str) -> list[RunStatus | TrainingStatus]:
    """Look at the run or training in a folder, or at all of an output folder or a recipe, the latest last.

    Raises `RecipeError` where there is none.
    """
    if (one := _status_of(path)) is not None:
        return [one]
    found = [_status_of(uri) for uri in storage.list_folders(place_of(path, "output"))]
    if not any(found):
        raise RecipeError(f"{path}: holds no run, and no folder with a run in it")
    return sorted((one for one in found if one is not None), key=_age, reverse=True)


def _age(one: RunStatus | TrainingStatus) -> float:
    """Tell how long ago it was heard of; what never was stands before all others."""
    return float("inf") if one.age is None else one.age


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
        **_asked_for(run),
        run_id=run.run_id,
        folder=run.folder,
        stage="finished" if record else stage,
        age=None if heard is None else time() - heard,
        passes=_passes(run, last) if record is None else {},
        record=record,
        finished=record is not None,
        resume=run.resume,
    )


def _asked_for(run: Run) -> dict[str, Any]:
    """Read the label, the score and the rules as the recipe has them, which an older version may have written."""
    try:
        recipe = read_object(run.paths.recipe)
    except DamagedPart as damage:
        warn(str(damage))
        return {}
    score, rules = recipe.get("score"), recipe.get("select")
    return {
        "label": recipe.get("label"),
        "score": score.get("name", "") if isinstance(score, dict) else "",
        "rules": [_rule(one) for one in rules if isinstance(one, dict)] if isinstance(rules, list) else (),
    }


def _rule(settings: dict[str, Any]) -> str:
    """Write a rule in a few words, such as `fraction 0.06` or `quota by=source count=5`."""
    kind = settings.get("type", "")
    given = {name: value for name, value in settings.items() if name != "type" and value not in (None, [])}
    words = (
        as_written(value) if name == kind else f"{name}={as_written(value)}" for name, value in given.items()
    )
    return shortened(" ".join([str(kind), *words]))


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
    if [one.folder for one in found] == [storage.real_folder(path)]:
        yield from found[0].lines()
        return
    table = [map(printable, one.cells()) for one in found]
    columns = [column for column in zip(*table, strict=True) if any(column)]
    widths = [max(map(len, column)) for column in columns]
    for cells in zip(*columns, strict=True):
        yield "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _progress(one: PassStatus) -> str:
    text = f"{one.sequences:,} of {one.sequences_planned:,} sequences, {one.tokens:,} of {one.tokens_planned:,} tokens"
    text += f" ({_share(one):.0%})"
    if one.rate is None or one.seconds_left is None or one.newest_part is None:
        return text
    speed = f"{one.rate:,.0f} tokens/s, {duration(one.seconds_left)} left"
    return f"{text}; {speed}; last part {ago(one.newest_part)}"


def _share(one: PassStatus) -> float:
    return one.tokens / max(one.tokens_planned, 1)
