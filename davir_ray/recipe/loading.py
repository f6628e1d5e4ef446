"""How a recipe is read.

Precedence: the defaults of the sections, then the YAML file, then each `--set a.b=c` in order.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from os import PathLike
from typing import Any

from pydantic import ValidationError

from davir_ray.config.section import AS_WRITTEN
from davir_ray.corpus.dataset_info import with_data_sets
from davir_ray.errors import RecipeError
from davir_ray.foreign_text import (
    HIDDEN,
    WHERE_SECRETS_BELONG,
    brief,
    holds_credentials,
    is_text,
    names_secret,
    refusal,
    shortened,
    without_credentials,
)
from davir_ray.recipe.complaints import complaints
from davir_ray.recipe.recipe import Recipe
from davir_ray.recipe.yaml_tree import MAX_DEPTH, TOO_DEEP, Path, YamlProblem, dotted, read_yaml

Overrides = Sequence[str] | Mapping[str, Any]
"""`a.b=c` texts, whose values are YAML, or dotted paths -> values as plain data; they are applied in order."""
MAX_BYTES = 2**20
"""Size of a recipe's file."""


def load_recipe(path: str | PathLike[str], overrides: Overrides = ()) -> Recipe:
    """Read a recipe and apply overrides. Raises `RecipeError`."""
    text = _read(path)
    try:
        tree, lines = read_yaml(text)
    except YamlProblem as problem:
        raise RecipeError(f"{path} line {problem.line}: {problem}") from problem
    by_a_run = str(path).endswith(".json")  # a recipe.json, which has every setting
    return parse_recipe(tree, str(path), overrides, lines, as_written=not by_a_run)


def parse_recipe(
    tree: Any,
    name: str,
    overrides: Overrides = (),
    lines: Mapping[Path, int] | None = None,
    as_written: bool = True,
) -> Recipe:
    """Validate a recipe given as plain data, with overrides applied in order. Raises `RecipeError`.

    name: stands in errors, as do the lines on which values stand, by their paths. as_written: whether a person wrote
    it, so that all that is there was meant. A run writes every setting down, and an override may put one back to its
    default: then only what is not the default is refused for want of effect.
    """
    if not isinstance(tree, dict):
        found = "the file is empty" if tree is None else f"found {brief(tree)}"
        raise RecipeError(f"{name}: {found}; expected a mapping of sections (corpus, models, ...)")
    origins = {path: f"{name} line {line}" for path, line in (lines or {}).items()} | {(): name}
    tree = deepcopy(tree) if overrides else tree
    for path, value, said in _settings(overrides):
        _apply(tree, path, value, said, origins)
    wrong = list(_unfit_text(tree, ()))
    if not wrong:
        tree = with_data_sets(tree, name)
        try:
            return Recipe.model_validate(tree, context=AS_WRITTEN if as_written and not overrides else None)
        except ValidationError as error:
            wrong = complaints(error, tree, Recipe)
    raise RecipeError(
        *(f"{_origin(path, origins)}: {dotted(path) or 'recipe'}: {text}" for path, text in wrong)
    )


def _read(path: str | PathLike[str]) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except IsADirectoryError as error:
        raise RecipeError(
            f"{path}: is a folder with no run in it; expected a recipe, or a run's folder"
        ) from error
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MAX_BYTES:
        raise RecipeError(f"{path}: is larger than {MAX_BYTES:,} bytes; expected a recipe in YAML")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{path} line {line}: is not UTF-8 text: {error.reason}") from error


def _origin(path: Path, origins: Mapping[Path, str]) -> str:
    """Tell where the value at a path, or the nearest section around it, was written."""
    return next(origins[path[:end]] for end in range(len(path), -1, -1) if path[:end] in origins)


def _unfit_text(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Find what no setting may hold, whatever it is for: secrets, and text that no file's name can be."""
    if len(path) > MAX_DEPTH:
        yield path[:3], TOO_DEEP
    elif isinstance(value, dict | list | tuple):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _unfit_text(name, path)
            if _is_secret(name, inner) and path[-1:] != ("paths",):
                yield (*path, name), f"is a secret by its name; {WHERE_SECRETS_BELONG}"
            yield from _unfit_text(inner, (*path, name))
    elif isinstance(value, str):
        if holds_credentials(value):
            yield path, refusal(value)
        if not is_text(value):
            yield path, f"{brief(value)} is no valid text: it holds a NUL, or bytes that are not UTF-8"


def _is_secret(name: Any, value: Any) -> bool:
    """Tell whether a setting is a secret by its name; `hf_token: true` says only that there is one."""
    return isinstance(name, str) and names_secret(name) and value is not None and not isinstance(value, bool)


def _settings(overrides: Overrides) -> Iterator[tuple[Path, Any, str]]:
    """Yield path and value of each override, and where it was said. Raises `RecipeError` for one that is none."""
    if isinstance(overrides, Mapping):
        for name, value in overrides.items():
            said = f"overrides {brief(name)}"
            yield _dotted_path(str(name), said), deepcopy(value), said
        return
    for setting in [overrides] if isinstance(overrides, str) else overrides:
        name, separator, text = setting.partition("=")
        told = f"{name}={HIDDEN}" if names_secret(name.rpartition(".")[2]) else without_credentials(setting)
        said = f"--set {shortened(told)}"
        if not separator:
            raise RecipeError(f"{said}: expected a.b=value")
        path = _dotted_path(name, said)
        try:
            yield path, read_yaml(text)[0], said
        except YamlProblem as problem:
            raise RecipeError(f"{said}: {problem}") from problem


def _dotted_path(name: str, said: str) -> Path:
    path = tuple(name.split("."))
    if not name:
        raise RecipeError(f"{said}: expected a.b=value")
    if len(path) > MAX_DEPTH:
        raise RecipeError(f"{said}: {TOO_DEEP}")
    return path


def _apply(tree: dict[str, Any], path: Path, value: Any, said: str, origins: dict[Path, str]) -> None:
    _section(tree, path, said)[path[-1]] = value
    for stale in [one for one in origins if one[: len(path)] == path]:
        del origins[stale]
    for end in range(1, len(path) + 1):
        origins.setdefault(path[:end], said)


def _section(tree: dict[str, Any], path: Path, said: str) -> dict[Any, Any]:
    """Return the section that a setting lies in; one that is not there is made."""
    node: dict[Any, Any] = tree
    for index, parent in enumerate(path[:-1]):
        child = node[parent] = node.get(parent) or {}
        if isinstance(child, str) and path[0] == "models":
            child = node[parent] = {"model_name_or_path": child}
        if not isinstance(child, dict):
            raise RecipeError(f"{said}: `{dotted(path[: index + 1])}` is not a section: found {brief(child)}")
        node = child
    return node
