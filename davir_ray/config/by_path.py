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


def knows(found: type, method: str, other: str) -> bool:
    """Tell whether a class has a method that knows what another does: it is not inherited past an own one of that name.

    A user's class may be derived from one of ours, and do one thing otherwise of which both speak.
    """
    order = [
        next((at for at, one in enumerate(found.__mro__) if name in vars(one)), None)
        for name in (method, other)
    ]
    has, makes = order
    return has is not None and (makes is None or has <= makes)
