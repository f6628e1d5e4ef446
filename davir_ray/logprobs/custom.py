"""Engines by import path, `module:Class`: the class, and the name of its source."""

import importlib
import inspect
import sys
from hashlib import blake2b
from typing import Any

from davir_ray.errors import EngineError


def engine_class(path: str) -> Any:
    """Import the class of a user's engine. Raises `EngineError` for one that cannot be made as engines are."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise EngineError(f"engine.type: {path} cannot be imported: {error}") from error
    if not inspect.isclass(found):
        raise EngineError(f"engine.type: {path} is no class but a {type(found).__name__}")
    try:
        inspect.signature(found).bind("", adapter_path=None, dtype="", device="", max_length=0)
    except (TypeError, ValueError) as error:
        raise EngineError(
            f"engine.type: {path} cannot be made as {name}(model_path, adapter_path=..., dtype=..., device=..., "
            f"max_length=...): {error}"
        ) from error
    return found


def code_digest(path: str) -> str:
    """Name the source of the module that defines a user's engine, in hex: an edited engine is another engine.

    Raises `EngineError` where there is no source to read: stored numbers could not be told from another version's.
    """
    try:
        source = inspect.getsource(sys.modules[engine_class(path).__module__])
    except (OSError, TypeError, KeyError) as error:
        raise EngineError(f"engine.type: {path}: its source cannot be read: {error}") from error
    return blake2b(source.encode(), digest_size=16).hexdigest()
