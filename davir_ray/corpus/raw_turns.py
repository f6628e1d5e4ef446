"""The turns of a row as they stand in the corpus -> under the names that the formats read.

Conversations written as JSON text are decoded, and the corpus's own names of turn keys and roles (`corpus.tags`)
become the usual ones.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from davir_ray.config import TagsConfig
from davir_ray.corpus.json_files import DEEPEST, deeper_than
from davir_ray.errors import CorpusError

CONVERSATIONS = ("messages", "conversations", "conversation")
"""Columns that hold turns and never plain text."""

ROLES = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "function_call",
    "system_tag": "system",
}
"""Tag of a role -> the role."""


def usual_turns(values: Mapping[str, Any], tags: TagsConfig) -> dict[str, Any]:
    """Return a row's values, under the format's column names, with their turns under the usual names."""
    decoded = {name: _decoded(value) if name in CONVERSATIONS else value for name, value in values.items()}
    if tags == TagsConfig():
        return decoded
    roles = {tag: role for name, role in ROLES.items() if (tag := getattr(tags, name)) is not None}
    return {
        name: value if name == "tools" else _renamed_turns(value, tags, roles)
        for name, value in decoded.items()
    }


def _decoded(value: Any) -> Any:
    """Decode the JSON text of a list; anything else stays for the format to refuse."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        turns = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return value if deeper_than(turns, DEEPEST) else turns


def _renamed_turns(value: Any, tags: TagsConfig, roles: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed_turns(item, tags, roles) if isinstance(item, dict) else item for item in value]
    return _renamed(value, tags, roles) if isinstance(value, dict) else value


def _renamed(turn: dict[str, Any], tags: TagsConfig, roles: Mapping[str, str]) -> dict[str, Any]:
    named = dict(turn)
    for key, tag in (("role", tags.role_tag), ("content", tags.content_tag)):
        if tag is not None and named.get(tag) is not None:
            named[key] = named.pop(tag)
    key = "role" if named.get("role") is not None else "from"
    if isinstance(name := named.get(key), str):
        named[key] = roles.get(name, name)
    return named


def check_tags(tags: TagsConfig, rows: Iterable[Mapping[str, Any]]) -> None:
    """Raise `CorpusError` where `role_tag` or `content_tag` is a key of no turn of some rows.

    rows: values under the format's column names, before `usual_turns`.
    """
    turns = [turn for row in rows for turn in turns_in(row)]
    keys = dict.fromkeys(key for turn in turns for key in turn)
    for name in ("role_tag", "content_tag"):
        tag = getattr(tags, name)
        if tag is not None and turns and tag not in keys:
            raise CorpusError(
                f"corpus.tags: {name}: no turn of the first rows has the key `{tag}`; they have {', '.join(keys)}"
            )


def turns_in(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the turns of a row's values: objects, alone or in a list."""
    for name, value in values.items():
        items = _decoded(value) if name in CONVERSATIONS else value
        for item in items if isinstance(items, list) else [items]:
            if name != "tools" and isinstance(item, dict):
                yield item
