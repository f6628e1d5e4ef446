"""Check that the files of runs are what they should be, down to the bytes of their results."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from davir_ray import storage
from davir_ray.drift.result import Drift
from davir_ray.errors import DamagedPart, StoreError
from davir_ray.nightly.nights import Nights
from davir_ray.runs.record import RunRecord, TrainingRecord, read_record
from davir_ray.runs.results import damaged_results
from davir_ray.runs.run import (
    holds_run,
    holds_training,
    load_run_or_recipe,
    recipe_of_run,
)
from davir_ray.storage.json_lines import read_lines
from davir_ray.storage.layout import NightsLayout, OutputLayout, RunLayout
from davir_ray.storage.sealed import read_object, read_sealed
from davir_ray.storage.typed import parsed
from davir_ray.train.metrics import metrics_at


def places(path: str) -> tuple[str | None, list[str]]:
    """Find what a path names: a store, and the folders of runs, trainings and nights.

    A run names itself and its store, a recipe its store and all runs of its name, any other path a store.
    """
    if holds_training(path):
        return None, [path]
    if holds_run(path):
        return _store_of(path), [path]
    if not Path(path).is_file():
        return path, []
    recipe, name = load_run_or_recipe(path, ())
    named = [
        uri for uri in storage.list_folders(recipe.output) if uri.rsplit("/", 1)[-1].startswith(f"{name}-")
    ]
    return recipe.store, [*named, OutputLayout(recipe.output).nights(name)]


def _store_of(run: str) -> str | None:
    """Name the store of a run; None if its recipe is damaged, which is told of as such."""
    try:
        return str(recipe_of_run(run)["store"])
    except StoreError:
        return None


def verify_run(folder: str) -> Iterator[DamagedPart]:
    """Read all small files of a run, and the results that its record names; yield those that are damaged."""
    folder = storage.real_folder(folder)
    for name, read in READERS.items():
        try:
            found = read(storage.join(folder, name))
        except DamagedPart as damage:
            yield damage
        except FileNotFoundError:
            continue
        except StoreError as error:
            yield DamagedPart(storage.join(folder, name), str(error).removeprefix(f"{folder}/{name}: "))
        else:
            if name == RunLayout.record:
                yield from damaged_results(folder, found.results)


def _recipe(uri: str) -> Any:
    return recipe_of_run(uri.removesuffix(f"/{RunLayout.recipe}"))


def _record(uri: str) -> Any:
    folder = uri.removesuffix(f"/{RunLayout.record}")
    if holds_training(folder):
        return read_record(folder, TrainingRecord)
    return read_record(folder, RunRecord)


def _drift(uri: str) -> Any:
    return parsed(Drift, read_sealed(uri), uri)


def _nights(uri: str) -> Any:
    return Nights(uri.removesuffix(f"/{NightsLayout.lines}")).read()


READERS: dict[str, Callable[[str], Any]] = {
    RunLayout.recipe: _recipe,
    RunLayout.training: read_object,
    RunLayout.events: read_lines,
    RunLayout.metrics: metrics_at,
    RunLayout.places: read_sealed,
    RunLayout.drift: _drift,
    NightsLayout.lines: _nights,
    RunLayout.record: _record,
}
"""How the small files of a folder are read."""
