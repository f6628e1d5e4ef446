"""The format that columns come nearest to, and the line of a recipe that would make it fit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from davir_ray.config import CorpusConfig
from davir_ray.config.nearest import plain
from davir_ray.corpus.formats import FORMATS, Format

MEANINGS = (
    ("instruction", "question", "query", "prompt", "problem", "task", "user", "human", "input"),
    (
        "output",
        "answer",
        "response",
        "completion",
        "solution",
        "target",
        "targets",
        "reply",
        "assistant",
        "gold",
    ),
    ("input", "context", "ctx", "passage"),
    ("messages", "conversations", "conversation", "turns", "dialog", "dialogue", "chat"),
    ("system", "system_prompt", "system_message", "sys"),
    ("chosen", "chosen_response", "preferred", "accepted", "winner"),
    ("rejected", "rejected_response", "dispreferred", "loser"),
)
"""Names that stand for one thing, in the formats and in corpora."""

MOST_NAMES = 60


@dataclass(frozen=True)
class Near:
    """A format beside some columns.

    columns: its name -> the file's, as far as one was found. missing: what it needs besides.
    guessed: how many of the columns are called something else.
    """

    format: Format
    columns: dict[str, str]
    missing: tuple[str, ...]
    guessed: int

    @property
    def renames(self) -> dict[str, str]:
        """Return the names that have to be said."""
        return {name: column for name, column in self.columns.items() if name != column}


def nearest(columns: Sequence[str], given: Mapping[str, str]) -> Near | None:
    """Return the format that reads most of these columns once they are renamed; None where none reads any.

    Of formats that read as many, the one whose names they have anyway. given: renames that stand already.
    """
    found = [near for format in FORMATS.values() if (near := beside(format, columns, given)).columns]
    return max(found, key=_closeness, default=None)


def _closeness(near: Near) -> tuple[int, int, int, int]:
    return -len(near.missing), len(near.columns), -near.guessed, -len(near.renames)


def beside(format: Format, columns: Sequence[str], given: Mapping[str, str]) -> Near:
    """Find a column for each name of a format: the one given, the same, one spelt alike, or one that means the same."""
    found = {name: given[name] for name in format.columns if given.get(name) in columns}
    for alike in (str.__eq__, _spelt_alike, _meant_alike):
        for name in format.columns:
            free = [column for column in columns if column not in found.values()]
            if name not in found and (column := _first(name, free, alike)) is not None:
                found[name] = column
    missing = [name for name in format.needs if name not in found]
    if format.one_of and not found.keys() & set(format.one_of):
        missing.append(" or ".join(format.one_of))
    guessed = sum(
        given.get(name) != column and not _spelt_alike(name, column) for name, column in found.items()
    )
    return Near(format, found, tuple(missing), guessed)


def _first(name: str, columns: Sequence[str], alike: Callable[[str, str], bool]) -> str | None:
    return next((column for column in columns if alike(name, column)), None)


def _spelt_alike(name: str, column: str) -> bool:
    return plain(name) == plain(column)


def _meant_alike(name: str, column: str) -> bool:
    return any(name in meaning and plain(column) in map(plain, meaning) for meaning in MEANINGS)


def recipe_line(config: CorpusConfig, source: str, **settings: Any) -> str:
    """Write settings of a source as they stand in a recipe, on one line each; under the source if there are several."""
    if len(config.paths) > 1:
        return recipe_lines({source: settings})
    return ", ".join(f"corpus.{name}: {_yaml(value)}" for name, value in settings.items())


def recipe_lines(settings: Mapping[str, Any]) -> str:
    """Write the settings of sources, by name, as they stand in a recipe."""
    return f"corpus.sources: {_yaml(dict(settings))}"


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return text.removesuffix("\n").removesuffix("\n...")


def remedy(columns: Sequence[str], config: CorpusConfig, source: str) -> str:
    """Say in a sentence which format the columns of a source come nearest to, and how to make it fit."""
    near = nearest(columns, config.of(source).columns)
    if near is None:
        known = ", ".join(
            f"{f.name} ({', '.join(f.needs) or ' or '.join(f.one_of)})" for f in FORMATS.values()
        )
        return f"known are {known}"
    if near.missing:
        return (
            f"the nearest is `{near.format.name}`, which also needs {', '.join(near.missing)}; "
            "`davir formats` shows a row of each format, corpus.columns renames"
        )
    if not near.renames:
        return f"{_fitting(columns, config.of(source).columns, near)} without a rename"
    return f"the nearest is `{near.format.name}`, by {recipe_line(config, source, columns=near.renames)}"


def _fitting(columns: Sequence[str], given: Mapping[str, str], near: Near) -> str:
    """Name the formats that these columns fit as well as the nearest; rows tell them apart, at which `auto` looks."""
    every = [beside(format, columns, given) for format in FORMATS.values()]
    names = [f"`{one.format.name}`" for one in every if _closeness(one) == _closeness(near)]
    if len(names) == 1:
        return f"{names[0]} fits"
    return f"{' and '.join(names)} fit (format `auto` looks at the rows and takes the right one)"


def names_of(columns: Mapping[str, Any] | Sequence[str]) -> str:
    """Write columns as a list, of which a long one is cut."""
    names = list(columns)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{', '.join(names[:MOST_NAMES])}{more}" or "(none)"
