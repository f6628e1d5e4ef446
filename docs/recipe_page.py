"""The page of the recipe: every section with its settings, types, defaults and meanings, from the pydantic models."""

from collections.abc import Iterator, Sequence
from inspect import getdoc
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from davir_ray.recipe import Recipe
from docs.tables import table

Models = list[type[BaseModel]]
NAMES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    NoneType: "null",
    Any: "any value",
}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
HEAD = ("setting", "type", "default", "meaning")
NAME_OF_ITEM = "NAME"
"""Stands in a path for a key of the user's own."""


def recipe_page() -> Iterator[str]:
    """Yield the page of the recipe."""
    yield from ["# The recipe, setting by setting", ""]
    yield "A dot goes into a section: `--set a.b=c` takes these paths. An unknown key is an error. A setting of a"
    yield "training that has no meaning here is TRL's of that name, one of `lora` PEFT's."
    yield "[Recipes](../recipes.md) shows how they are used."
    homes = homes_of(Recipe)
    yield from ["", *settings(fields_of([Recipe]), "", homes)]
    for path, models in sections(Recipe, "", homes):
        yield from section(path, models, homes)


def homes_of(root: type[BaseModel]) -> dict[type[BaseModel], str]:
    """Map each model to the shortest path at which it stands; its settings are told there, once."""
    homes, waiting = {root: ""}, [root]
    for model in waiting:
        for name, field in model.model_fields.items():
            for inner in models_in(field.annotation):
                if inner not in homes:
                    homes[inner] = joined(homes[model], name, field.annotation)
                    waiting.append(inner)
    return homes


def sections(
    model: type[BaseModel], path: str, homes: dict[type[BaseModel], str]
) -> Iterator[tuple[str, Models]]:
    """Yield the path of each section below a model, with the models that may stand there, in order."""
    for name, field in model.model_fields.items():
        inner = joined(path, name, field.annotation)
        here = [one for one in models_in(field.annotation) if homes[one] == inner]
        if here:
            yield inner, here
        for one in here:
            yield from sections(one, inner, homes)


def section(path: str, models: Models, homes: dict[type[BaseModel], str]) -> Iterator[str]:
    """Yield what is said of the section at a path. Of several models, what they share is told before what each has."""
    yield from ["", f"## `{path}`", ""]
    if len(models) == 1:
        yield from [meaning(getdoc(models[0])), "", *settings(fields_of(models), path, homes)]
        return
    shared = fields_of(models)
    if shared:
        yield from [*settings(shared, path, homes), ""]
    for model in models:
        own = {name: field for name, field in model.model_fields.items() if name not in shared}
        tag = tag_of(own)
        yield from [f"### `{path}`, `{tag}: {' or '.join(get_args(own.pop(tag).annotation))}`", ""]
        yield from [meaning(getdoc(model)), "", *settings(own, path, homes), ""]


def tag_of(own: dict[str, FieldInfo]) -> str:
    """Return the setting that tells one of several models of a path from the others."""
    return next(name for name, field in own.items() if get_origin(field.annotation) is Literal)


def fields_of(models: Models) -> dict[str, FieldInfo]:
    """Return the settings that models share: equal in type, default and meaning."""
    first, *others = (model.model_fields for model in models)
    return {
        name: field
        for name, field in first.items()
        if all(name in other and repr(other[name]) == repr(field) for other in others)
    }


def settings(fields: dict[str, FieldInfo], path: str, homes: dict[type[BaseModel], str]) -> Iterator[str]:
    """Yield the table of the settings of a section."""
    rows = [
        [f"`{name}`", kind(field, homes), default(field), meaning(field.description or of_section(field))]
        for name, field in fields.items()
    ]
    yield from table(HEAD, rows)


def kind(field: FieldInfo, homes: dict[type[BaseModel], str]) -> str:
    """Tell in words what a setting may hold."""
    bounds = [
        f"{word} {getattr(rule, name)}"
        for rule in field.metadata
        for name, word in BOUNDS.items()
        if hasattr(rule, name)
    ]
    return ", ".join([words(field.annotation, homes), *bounds])


def words(annotation: Any, homes: dict[type[BaseModel], str]) -> str:
    """Tell a type in words; a section links to where it is told."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in homes:
        return f"[`{homes[annotation]}`](#{anchor(homes[annotation])})"
    if origin is Literal:
        return ", ".join(f"`{written(one)}`" for one in inner)
    if origin is Annotated:
        return words(inner[0], homes)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(words(one, homes) for one in inner))
    if origin is tuple:
        return f"list of {words(inner[0], homes)}"
    if origin is dict:
        return f"mapping to {words(inner[1], homes)}"
    return NAMES.get(annotation) or annotation.__name__


def default(field: FieldInfo) -> str:
    """Return the default of a setting as a recipe would have it; nothing for a section, whose settings have theirs."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if isinstance(value, BaseModel) else f"`{written(value)}`"


def written(value: Any) -> str:
    """Write a value as YAML on one line."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = [one.model_dump(mode="json") if isinstance(one, BaseModel) else one for one in value]
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("...\n").strip()


def of_section(field: FieldInfo) -> str | None:
    """Say of a section what its model says of itself."""
    models = models_in(field.annotation)
    return getdoc(models[0]) if len(models) == 1 else None


def meaning(text: str | None) -> str:
    """Return a docstring as one line; its first paragraph says what is meant."""
    return " ".join((text or "").split("\n\n")[0].split())


def models_in(annotation: Any) -> Models:
    """Return the models that a type names, in order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return list(dict.fromkeys(model for inner in get_args(annotation) for model in models_in(inner)))


def joined(path: str, name: str, annotation: Any) -> str:
    """Return the path of the sections of a setting; a mapping of sections has a key between."""
    own = f"{path}.{name}" if path else name
    return f"{own}.{NAME_OF_ITEM}" if get_origin(annotation) is dict and models_in(annotation) else own


def anchor(path: str) -> str:
    """Return the anchor of the heading of a path, the same on GitHub and in MkDocs."""
    return path.replace(".", "").lower()
