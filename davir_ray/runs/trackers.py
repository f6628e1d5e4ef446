"""W&B and MLflow for runs that score: what the recipe's `report_to` names is told of a run while it works.

A tracker gets the recipe, the figures of each pass as they come, and those of the record at the end; no row, and no
text of one. Where it keeps them its own environment variables say (WANDB_PROJECT, MLFLOW_TRACKING_URI, ...). A run that
goes on where it stopped is the same run there. A tracker that fails costs a warning, never the run.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from importlib.util import find_spec
from time import time
from typing import Any, Protocol

from davir_ray.errors import RecipeError
from davir_ray.progress import warn
from davir_ray.recipe import Recipe
from davir_ray.runs.record import RunRecord
from davir_ray.runs.run import Event, Run, title_of
from davir_ray.storage.layout import RunLayout

PROJECT = "davir_ray"
"""Project of W&B, and experiment of MLflow, where the environment names none."""
Figures = dict[str, float]
"""Name, such as `base/tokens_per_second`, -> number."""


class Tracker(Protocol):
    """Where figures of runs are kept."""

    def note(self, figures: Figures, step: int) -> None:
        """Keep figures as of a step."""
        ...

    def end(self, succeeded: bool) -> None:
        """Close the run."""
        ...


def _known_as(run: Run) -> str:
    """Name a run for trackers, in letters that all take: the same at every start."""
    return blake2b(run.folder.encode(), digest_size=8).hexdigest()


class WandbTracker:
    """A run of Weights & Biases. No code, no terminal output and no command line is sent."""

    def __init__(self, run: Run, title: str, settings: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=_known_as(run),
            name=title,
            config={**settings, "run_dir": run.folder},
            resume="allow",
            reinit="create_new",  # whoever called us may have a run of his own under way
            settings=wandb.Settings(
                console="off", disable_code=True, disable_git=True, x_disable_meta=True, silent=True
            ),
        )

    def note(self, figures: Figures, step: int) -> None:
        """Log figures; the last of each name is its summary. W&B's own steps may only grow, so ours is a figure."""
        self._run.log({**figures, "event": step})

    def end(self, succeeded: bool) -> None:
        """Send what is left."""
        self._run.finish(exit_code=0 if succeeded else 1)


class MlflowTracker:
    """A run of MLflow."""

    def __init__(self, run: Run, title: str, settings: Mapping[str, Any]) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        own = _known_as(run)
        begun = self._client.search_runs([experiment], f"tags.davir_ray_run = '{own}'", max_results=1)
        if begun:
            self._id = begun[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            tags = {"davir_ray_run": own, "run_dir": run.folder}
            self._id = self._client.create_run(experiment, run_name=title, tags=tags).info.run_id
        self._client.log_dict(self._id, dict(settings), RunLayout.recipe)

    def note(self, figures: Figures, step: int) -> None:
        """Log figures, under names of the characters that MLflow takes."""
        from mlflow.entities import Metric

        now = int(time() * 1000)
        named = {re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII): value for name, value in figures.items()}
        self._client.log_batch(
            self._id, metrics=[Metric(name, value, now, step) for name, value in named.items()]
        )

    def end(self, succeeded: bool) -> None:
        """Close the run."""
        self._client.set_terminated(self._id, "FINISHED" if succeeded else "FAILED")


TRACKERS: dict[str, Callable[[Run, str, Mapping[str, Any]], Tracker]] = {
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}


def check_trackers(setting: str, names: Sequence[str]) -> None:
    """Check that what is to be reported to is installed. Raises `RecipeError`."""
    for name in names:
        if find_spec(name) is None:
            raise RecipeError(f"{setting}: {name} is not installed")


class Reporting:
    """Tells the trackers of a run; one that fails is told no more."""

    def __init__(self, run: Run, recipe: Recipe) -> None:
        self._run = run
        self._trackers: dict[str, Tracker] = {}
        settings = recipe.model_dump(mode="json")
        title = title_of(recipe.label, run.run_id)
        for name in recipe.report_to:
            with self._surviving(name):
                self._trackers[name] = TRACKERS[name](run, title, settings)

    def event(self, event: Event) -> None:
        """Tell of an event of the run, if it has figures."""
        if figures := figures_of_event(event):
            self._note(figures)

    def record(self, record: RunRecord) -> None:
        """Tell what the run came to."""
        self._note(figures_of_record(record))

    def end(self, succeeded: bool) -> None:
        """Close what is open."""
        for name, tracker in list(self._trackers.items()):
            with self._surviving(name):
                tracker.end(succeeded)

    def _note(self, figures: Figures) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._surviving(name):
                tracker.note(figures, step=len(self._run.events))

    @contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._trackers.pop(name, None)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            warn(f"report_to: {name} is told nothing more of this run: {reason}")


@contextmanager
def reporting(run: Run, recipe: Recipe) -> Iterator[Reporting]:
    """Tell the trackers of a recipe of the events of a run while the context lasts, and how it ended."""
    told = Reporting(run, recipe)
    run.watchers.append(told.event)
    succeeded = False
    try:
        yield told
        succeeded = True
    finally:
        run.watchers.remove(told.event)
        told.end(succeeded)


def figures_of_event(event: Event) -> Figures:
    """Return the numbers of a line about a pass, by its label and their names."""
    if event["event"] not in ("progress", "measured"):
        return {}
    return {f"{event['role']}/{name}": value for name, value in event.items() if _is_figure(name, value)}


def figures_of_record(record: RunRecord) -> Figures:
    """Return the numbers of a record: rows, tokens, what left rows out, and what was measured."""
    tree = record.tree()
    found = {name: value for name, value in tree.items() if _is_figure(name, value)}
    for group in ("status", "dropped_by", "measured", "measured_again", "reused"):
        found |= {f"{group}/{name}": value for name, value in tree[group].items()}
    return found


def _is_figure(name: str, value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and name not in ("time", "schema_version")
    )
