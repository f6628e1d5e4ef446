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


def is_as_new(owner: type, method: str, than: str) -> bool:
    """Tell whether a class has `method`, defined in the same class as `than` or in one derived from it.

    A user's class may be derived from one of ours and have a `than` of its own, of which our `method` knows nothing.
    """
    defined = {
        name: next((at for at, one in enumerate(owner.__mro__) if name in vars(one)), None)
        for name in (method, than)
    }
    found, other = defined[method], defined[than]
    return found is not None and (other is None or found <= other)
