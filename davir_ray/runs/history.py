"""Earlier runs, as they left themselves on disk."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from davir_ray import storage
from davir_ray.errors import DamagedPart
from davir_ray.progress import warn
from davir_ray.recipe import Recipe
from davir_ray.runs.record import RunRecord
from davir_ray.runs.run import Event, Run, title_of
from davir_ray.storage.sealed import read_object


@dataclass(frozen=True)
class PastRun:
    """A finished run. recipe: as plain data, since a recipe of an older version may parse no more."""

    record: RunRecord
    recipe: Mapping[str, Any]
    events: tuple[Event, ...]
    folder: str

    @property
    def run_id(self) -> str:
        """The name of its folder."""
        return self.record.run_id

    @property
    def title(self) -> str:
        """What people call it with its name behind, or its name alone."""
        return title_of(self.recipe.get("label"), self.run_id)

    @property
    def ended(self) -> float:
        """When it last said what it does, in seconds since 1970."""
        return float(self.events[-1]["time"]) if self.events else 0.0

    @property
    def ended_at(self) -> str:
        """The same as date and time, or `unknown`."""
        if not self.events:
            return "unknown"
        return f"{datetime.fromtimestamp(self.ended, UTC):%Y-%m-%d %H:%M} UTC"


def past_run(folder: str) -> PastRun | None:
    """Read a run from its folder; None if it is not finished and whole, or not there."""
    run = Run.from_folder(folder)
    if (record := run.record(RunRecord)) is None:
        return None
    try:
        recipe = read_object(run.paths.recipe)
    except (DamagedPart, FileNotFoundError) as error:
        warn(f"an earlier run is passed over: {error}")
        return None
    run.read_events()
    return PastRun(record, recipe, tuple(run.events), run.folder)


def models_measured(recipe: Recipe, name: str) -> Mapping[str, tuple[str, ...]]:
    """Return the identities of a recipe's models as its latest finished run saw them; empty if none names them."""
    names = _names(recipe.models.model_dump(mode="json"))
    for run in reversed(past_runs(recipe.output, name)):
        if _names(run.recipe["models"]) == names:
            return run.record.models
    return {}


def _names(models: Any) -> Any:
    """Make the names of models absolute: a run keeps them so, and a recipe whose folders are gone cannot.

    Settings without a value go: an older version may not have known them.
    """
    if isinstance(models, dict):
        return {key: _names(value) for key, value in models.items() if value is not None}
    if isinstance(models, list):
        return [_names(value) for value in models]
    return models if models is None or "://" in models else storage.absolute(models)


def past_runs(output: str, name: str) -> list[PastRun]:
    """Read the finished runs of a recipe's name, the latest last; its trainings are not among them."""
    is_run = re.compile(re.escape(name) + "-[0-9a-f]{12}").fullmatch
    folders = [uri for uri in storage.list_folders(output) if is_run(uri.rsplit("/", 1)[-1])]
    found = [run for run in storage.concurrently(past_run, folders) if run is not None]
    return sorted(found, key=lambda run: run.ended)
