"""What pydantic finds wrong with a recipe, as sentences of ours."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from davir_ray.config.nearest import did_you_mean
from davir_ray.config.section import NO_EFFECT
from davir_ray.foreign_text import brief
from davir_ray.recipe.yaml_tree import Path, dotted

EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of less than 64 bits",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "too_short": "at least one",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
}
"""A kind of error -> what should have been there."""

EXAMPLES: dict[Path, str] = {("select",): "[{type: fraction, fraction: 0.06}]"}
"""A setting that is a list -> how it is written."""


def complaints(error: ValidationError, tree: Any, recipe: type[BaseModel]) -> list[tuple[Path, str]]:
    """Return path and sentence of each thing that is wrong with a recipe given as plain data."""
    found: dict[Path, list[Any]] = {}
    for one in error.errors(include_url=False):
        for each in _each_setting(one):
            found.setdefault(_place(tree, each), []).append(each)
    # Of a union, what is wrong within the alternative that was meant says more than that the others do not fit.
    deepest = [path for path in found if not any(len(far) > len(path) == _shared(far, path) for far in found)]
    return [(path, _sentence(path, found[path], tree, recipe)) for path in deepest]


def _shared(one: Path, other: Path) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _each_setting(error: Any) -> list[Any]:
    """Return an error for each setting without effect; any other error as it is."""
    if error["type"] != NO_EFFECT:
        return [error]
    return [
        {**error, "loc": (*error["loc"], *name.split(".")), "ctx": {"why": why}}
        for name, why in error["ctx"]["settings"].items()
    ]


def _place(tree: Any, error: Any) -> Path:
    """Return where an error lies in the recipe as it was written: pydantic adds the names of alternatives."""
    path: list[str | int] = []
    previous: Any = None
    for part in error["loc"]:
        is_alternative = isinstance(previous, int) and isinstance(tree, dict) and tree.get("type") == part
        previous = part
        if not is_alternative and _holds(tree, part):
            path.append(part)
            tree = tree[part]
    if (
        error["type"] == "value_error" and not path
    ):  # of settings that do not go together: it names one itself
        path += [int(part) if part.isdigit() else part for part in _named(error)[0].split(".") if part]
    if error["type"] == "missing":
        path.append(error["loc"][-1])
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path.append("type")
    return tuple(path)


def _named(error: Any) -> tuple[str, str]:
    """Split `a.b: what is wrong` into its setting, or nothing, and the rest."""
    found = re.fullmatch(r"(?s)(?:([a-z_]+(?:\.\w+)*): )?(.*)", str(error["ctx"]["error"]))
    return (found[1] or "", found[2]) if found else ("", "")


def _holds(tree: Any, part: str | int) -> bool:
    if isinstance(tree, dict):
        return part in tree
    return isinstance(tree, list | tuple) and isinstance(part, int) and part < len(tree)


def _sentence(path: Path, errors: Sequence[Any], tree: Any, recipe: type[BaseModel]) -> str:
    first = errors[0]
    if first["type"] in SENTENCES:
        return SENTENCES[first["type"]](path, first, tree, recipe)
    expected = dict.fromkeys(_expected(path, one) for one in errors)
    return f"found {brief(first['input'])}; expected {' or '.join(expected)}"


def _expected(path: Path, error: Any) -> str:
    expected = EXPECTED.get(error["type"])
    if expected is None:
        return str(error["msg"])
    if error["type"] == "tuple_type":
        given = error["input"]
        example = EXAMPLES.get(path) or (f"[{given}]" if isinstance(given, str) and len(given) < 30 else "")
        return f"{expected}, such as {example}" if example else expected
    return expected.format(**error.get("ctx", {}))


def _unknown(path: Path, _: Any, tree: Any, recipe: type[BaseModel]) -> str:
    name = str(path[-1])
    siblings = {name for model in _models_at(path[:-1], tree, recipe) for name in model.model_fields}
    if hint := did_you_mean(name, siblings):
        return f"there is no such setting{hint}"
    elsewhere = [one for one in _settings(recipe, ()) if one[-1] == name]
    if elsewhere:
        return f"there is no such setting; did you mean `{dotted(elsewhere[0])}`?"
    return f"there is no such setting; expected {', '.join(sorted(siblings))}"


def _not_among(_: Path, error: Any, __: Any, ___: Any) -> str:
    expected, given = error["ctx"]["expected"], error["input"]
    hint = did_you_mean(given, re.findall(r"'([^']+)'", expected)) if isinstance(given, str) else ""
    return f"found {brief(given)}; expected {expected}{hint}"


def _rule(_: Path, error: Any, __: Any, ___: Any) -> str:
    types, given = error["ctx"]["expected_tags"], error["input"].get("type")
    hint = did_you_mean(given, re.findall(r"'([^']+)'", types)) if isinstance(given, str) else ""
    return f"found {brief(given)}; expected one of {types}{hint}"


SENTENCES: dict[str, Callable[[Path, Any, Any, type[BaseModel]], str]] = {
    "extra_forbidden": _unknown,
    "literal_error": _not_among,
    "union_tag_invalid": _rule,
    "union_tag_not_found": lambda *_: "is missing; write a rule as {type: fraction, fraction: 0.06}",
    "missing": lambda *_: "is missing",
    NO_EFFECT: lambda _, error, *__: f"has no effect: {error['ctx']['why']}",
    "value_error": lambda _, error, *__: _named(error)[1] if not error["loc"] else str(error["ctx"]["error"]),
}


def _models_at(path: Path, tree: Any, recipe: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the sections that may stand at a path; of rules, the one that is named there."""
    models = [recipe]
    for part in _unabbreviated(path):
        tree = tree[part] if _holds(tree, part) else None
        fields = [
            model.model_fields[part]
            for model in models
            if isinstance(part, str) and part in model.model_fields
        ]
        models = [model for field in fields for model in _models_in(field.annotation)] if fields else models
    kind = tree.get("type") if isinstance(tree, dict) else None
    named = [
        model
        for model in models
        if "type" in model.model_fields and model.model_fields["type"].default == kind
    ]
    return named or models


def _unabbreviated(path: Path) -> Path:
    """Return a path with `reference` as the part of `references` that it stands for."""
    return ("references", *path) if path[:1] == ("reference",) else path


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _settings(model: type[BaseModel], path: Path) -> Iterator[Path]:
    """Return the paths of all settings, those near the top first."""
    yield from ((*path, name) for name in model.model_fields)
    for name, field in model.model_fields.items():
        for inner in _models_in(field.annotation):
            if len(path) < 2 and name != "select":
                yield from _settings(inner, (*path, name))
