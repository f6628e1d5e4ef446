"""A recipe as one would write it: without what is the default anyway."""

from collections.abc import Mapping
from math import inf
from typing import Any

import yaml
from pydantic import BaseModel

from davir_ray.recipe import Recipe


def recipe_text(recipe: Recipe) -> str:
    """Return YAML that parses to an equal recipe."""
    return yaml.safe_dump(written(recipe), sort_keys=False, allow_unicode=True, width=100)


def in_one_line(settings: Mapping[str, Any]) -> str:
    """Return plain data as a line of YAML, without the braces around it; empty for none."""
    return yaml.safe_dump(
        settings, default_flow_style=True, sort_keys=False, allow_unicode=True, width=inf
    ).strip()[1:-1]


def written(value: Any) -> Any:
    """Return the settings of a section that differ from their defaults, as plain data; its `type` stays."""
    if isinstance(value, BaseModel):
        known = {name: getattr(value, name) for name in type(value).model_fields}
        return {
            name: written(one) for name, one in known.items() if name == "type" or _differs(value, name, one)
        }
    if isinstance(value, dict):
        return {name: written(one) for name, one in value.items()}
    return [written(one) for one in value] if isinstance(value, list | tuple) else value


def _differs(section: BaseModel, name: str, value: Any) -> bool:
    field = type(section).model_fields[name]
    return bool(field.is_required() or value != field.get_default(call_default_factory=True))
