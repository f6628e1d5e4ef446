"""Things of the user's own, named `module:attribute` in a recipe."""

from importlib import import_module
from inspect import getsource
from typing import Any

from davir_ray.errors import RecipeError


def import_by_path(setting: str, path: str) -> Any:
    """Import what `module:attribute` names. Raises `RecipeError`, which begins with the setting."""
    module, _, attribute = path.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, ValueError, AttributeError) as error:
        raise RecipeError(f"{setting}: cannot be imported: {error}") from error


def source_of(path: str) -> str:
    """Return the source of the module that `module:attribute` names."""
    return getsource(import_module(path.partition(":")[0]))
