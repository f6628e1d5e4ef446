"""A run on disk: its name, its recipe, its events, and the record that says it is finished.

    <output>/<run_id>/recipe.json  events.jsonl  lease/  scored/  coreset/  exports/  record.json

`run_id` names everything that decides the result, so the command that started a run also resumes it.
`record.json` is written last: a folder without it is unfinished, and so is one whose results are not what it says.
"""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from time import time
from typing import Any, Literal

from davir_ray import storage
from davir_ray.config import TrainConfig
from davir_ray.errors import DamagedPart, DavirError, RecipeError, StoreError
from davir_ray.progress import warn
from davir_ray.recipe import Recipe, load_recipe, parse_recipe
from davir_ray.recipe.loading import Overrides
from davir_ray.runs.events import ANY_EVENT
from davir_ray.runs.record import R, RunRecord, read_record
from davir_ray.runs.results import RESULTS, check_sizes, results_in
from davir_ray.storage.damage import set_aside
from davir_ray.storage.json_lines import read_lines, write_lines
from davir_ray.storage.layout import OutputLayout, RunLayout
from davir_ray.storage.sealed import read_object, write_sealed

WRITTEN_AGAIN = (
    "`davir score` with the recipe file that began the run writes it again, and goes on with what is measured"
)
NOT_IN_RUN_ID: dict[str, Any] = {
    "label": True,
    "engine": {"replicas", "num_cpus", "stall_seconds", "gpu_memory_utilization", "wait_seconds"},
    "output": True,
    "store": True,
    "warmup": True,
    "references": True,
    "train": True,
    "nightly": True,
    "report_to": True,
}
"""Settings that decide what a run is called, where and how fast it works, what is trained before and after it, when a
night is a bad one, who is told of it, and nothing of its result.

The reference counts by its content, as every model does.
"""


def run_id_of(recipe: Recipe, name: str, *content: str) -> str:
    """Name a run: `name`, and a hash of its recipe and of the content (corpus, models) that it works on."""
    settings = recipe.model_dump(mode="json", exclude=NOT_IN_RUN_ID)
    text = json.dumps([settings, content], sort_keys=True)
    return f"{name}-{blake2b(text.encode(), digest_size=6).hexdigest()}"


def title_of(label: str | None, run_id: str) -> str:
    """Return what people call a run with its name behind, or its name alone."""
    return f"{label} ({run_id})" if label else run_id


NOT_IN_TRAINING_ID = {"max_failures", "num_cpus_per_worker", "report_to", "save_total_limit", "wait_seconds"}
"""Settings of a training that leave its result as it is."""


def training_id_of(train: TrainConfig, name: str, *content: str) -> str:
    """Name a training: `name`, and a hash of its settings and of the content (rows, base) that it works on."""
    settings = train.model_dump(mode="json", exclude=NOT_IN_TRAINING_ID)
    text = json.dumps([settings, content], sort_keys=True)
    return f"{name}-{blake2b(text.encode(), digest_size=6).hexdigest()}"


Event = dict[str, Any]
"""A line of events.jsonl: `time`, `event`, and whatever the event notes."""


@dataclass
class Run:
    """One run. `folder` is `<output>/<run_id>`. watchers: are told of each event that this process notes."""

    run_id: str
    folder: str
    events: list[Event] = field(default_factory=list)
    watchers: list[Callable[[Event], None]] = field(default_factory=list)

    @classmethod
    def in_output(cls, output: str, run_id: str) -> "Run":
        """Name a run, whether it was begun or not."""
        return cls(run_id, OutputLayout(output).run(run_id))

    @classmethod
    def from_folder(cls, folder: str) -> "Run":
        """Name the run in a folder, whether it was begun or not."""
        return cls.in_output(*storage.real_folder(folder).rsplit("/", 1))

    @classmethod
    def begin(cls, recipe: Recipe, run_id: str, written_as: str = RunLayout.recipe) -> "Run":
        """Begin a run, or take up one that was begun: write its recipe down.

        That of a training has another name: `davir resume` and `davir select` are for runs that score.
        """
        run = cls.in_output(recipe.output, run_id)
        storage.write_atomic(
            storage.join(run.folder, written_as),
            json.dumps(recipe.model_dump(mode="json"), indent=2).encode(),
        )
        run.read_events()
        return run

    @classmethod
    def existing(cls, folder: str) -> "Run":
        """Look at a run that was begun. Raises `RecipeError` if the folder holds none."""
        folder = storage.real_folder(folder)
        refuse_training(folder)
        if not holds_run(folder) and storage.exists(RunLayout(folder).events):
            raise StoreError(f"{RunLayout(folder).recipe}: is gone; {WRITTEN_AGAIN}")
        if not holds_run(folder):
            raise RecipeError(f"{folder}: holds no run: there is no {RunLayout.recipe} in it")
        run = cls.from_folder(folder)
        run.read_events()
        return run

    def read_events(self) -> None:
        """Read what was noted by whoever worked on the run; nothing of the result depends on it."""
        try:
            self.events = [_checked_event(self.paths.events, one) for one in read_lines(self.paths.events)]
        except DamagedPart as damage:
            warn(f"{damage}; what happened before now is forgotten")
            self.events = []

    @property
    def paths(self) -> RunLayout:
        """The names of its files and folders."""
        return RunLayout(self.folder)

    @property
    def resume(self) -> str:
        """The command that takes the run up again."""
        return f"davir resume {shlex.quote(self.folder)}"

    def event(self, name: str, **values: Any) -> None:
        """Note what happened, for whoever reads the run later: an event of `ANY_EVENT` by its name."""
        noted = ANY_EVENT.validate_python({"time": round(time(), 3), "event": name, **values})
        self.events.append(noted.tree())
        write_lines(self.paths.events, self.events)
        for tell in self.watchers:
            tell(self.events[-1])

    def record(self, model: type[R]) -> R | None:
        """Read the record; None while the run is unfinished, or if its results are not there and whole.

        model: `RunRecord`, or `TrainingRecord` for a training.
        """
        try:
            return self.whole_record(model)
        except DamagedPart:
            return None

    def whole_record(self, model: type[R]) -> R | None:
        """Read the record; None if there is none. Raises `DamagedPart` if it, or a result file, is not whole."""
        try:
            record = read_record(self.folder, model)
        except FileNotFoundError:
            return None
        check_sizes(self.folder, record.results)
        return record

    def reopen(self, model: type[R]) -> R | None:
        """Read the record as `record` does; one that is not true any more is set aside. For who holds the lease."""
        try:
            return self.whole_record(model)
        except DamagedPart as damage:
            set_aside(DamagedPart(self.paths.record, f"the run is not finished any more: {damage}"))
            return None

    def forget_work(self) -> None:
        """Delete the plan and the progress of measuring."""
        for folder in (self.paths.work, self.paths.work_of_rows, self.paths.work_of_eval_rows):
            storage.delete(folder)

    def finish(self, record: R) -> R:
        """Write the record, with the digests of the result files, and tidy up; return it as it reads."""
        results = results_in(self.folder)
        listed = {name: one.tree() for name, one in results.items()}
        write_sealed(self.paths.record, record.tree() | {RESULTS: listed})
        self.tidy()
        return record.model_copy(update={"results": results})

    def tidy(self) -> None:
        """Delete what only an unfinished run needs."""
        self.forget_work()
        storage.delete(self.paths.ranked)


def holds_run(folder: str) -> bool:
    """Tell whether a run was begun in a folder."""
    return storage.exists(RunLayout(folder).recipe)


def holds_training(folder: str) -> bool:
    """Tell whether a training was begun in a folder."""
    return storage.exists(RunLayout(folder).training)


def refuse_training(folder: str) -> None:
    """Raise `RecipeError` for a folder in which a training was begun, where a run that scores is expected."""
    if holds_training(folder):
        raise RecipeError(f"{folder}: is a training; the command that started it goes on with it")


def finished_run(run_dir: str) -> tuple[Run, RunRecord]:
    """Open a finished run; return it with its record. Raises `RecipeError`."""
    run = Run.existing(run_dir)
    record = run.record(RunRecord)
    if record is None:
        raise RecipeError(
            f"{run_dir}: is not finished, so its rows are not ranked yet; {run.resume} goes on with it"
        )
    return run, record


def _checked_event(uri: str, event: Event) -> Event:
    if not isinstance(event.get("event"), str) or not isinstance(event.get("time"), float | int):
        raise DamagedPart(uri, f"holds what is no event: {str(event)[:60]}")
    return event


def load_run_or_recipe(path: str, overrides: Overrides) -> tuple[Recipe, str]:
    """Read the recipe of a run's folder, or of a file; return it with the name that its runs carry."""
    refuse_training(path)
    if not holds_run(path):
        return load_recipe(path, overrides), Path(path).stem
    folder = storage.real_folder(path)
    recipe = parse_recipe(recipe_of_run(folder), RunLayout(folder).recipe, overrides, as_written=False)
    return recipe, folder.rsplit("/", 1)[-1].rsplit("-", 1)[0]


def recipe_of_run(folder: str) -> dict[str, Any]:
    """Read the recipe of a run as plain data. Raises `StoreError` if it is none: only a recipe file makes it again."""
    uri = RunLayout(folder).recipe
    try:
        parse_recipe(tree := read_object(uri), uri, as_written=False)
    except DavirError as error:
        raise StoreError(f"{error.lines[0]}; {WRITTEN_AGAIN}") from error
    return tree


def place_of(path: str, setting: Literal["store", "output"]) -> str:
    """Read from a recipe, or from a run's folder, where it keeps things; any other path is the place itself."""
    if holds_run(path) or Path(path).is_file():
        return str(getattr(load_run_or_recipe(path, ())[0], setting))
    return path
