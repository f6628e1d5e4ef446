"""Raw values of a row -> chat messages, or the reason why not.

Every function here raises `RowError` with a status and a reason that names the column, what was expected and
what was found.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from davir_ray.corpus.example import Message
from davir_ray.errors import RowError
from davir_ray.schema import Status

Row = Mapping[str, Any]

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "ipython": "tool",
}
"""The role names of OpenAI, ShareGPT, LLaMA-Factory, swift, Gemma and Llama -> the four of chat templates."""

CALLS = ("function_call", "tool_call")
"""Roles whose text is the JSON of a call, which chat templates take as `tool_calls`."""


def bad_format(column: str, expected: str, found: Any) -> RowError:
    """Return the error for a value of the wrong shape."""
    return RowError(Status.BAD_FORMAT, f"column `{column}`: expected {expected}, found {describe(found)}")


def describe(value: Any) -> str:
    """Name a value in a few ASCII words."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        keys = ", ".join(map(str, list(value)[:6])) or "(none)"
        return f"an object with the keys {ascii(keys)[1:-1]}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    shown = ascii(value)
    return f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:40] + '...'}"


def drop_nulls(value: Any) -> Any:
    """Remove null-valued keys at every depth: an Arrow struct has every key that any row has."""
    if isinstance(value, dict):
        return {key: drop_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [drop_nulls(item) for item in value]
    return value


def check_text(row: Row) -> None:
    """Raise `RowError` where a value holds text that UTF-8 cannot encode."""
    for column, value in row.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            code = ascii(text[error.start])
            raise RowError(
                Status.BAD_TEXT, f"column `{column}`: holds the unpaired surrogate {code}, which is no text"
            ) from error


def text_of(row: Row, column: str) -> str:
    """Return a column's text."""
    value = row.get(column)
    if not isinstance(value, str):
        raise bad_format(column, "text", value)
    return value


def optional_text(row: Row, column: str) -> str:
    """Return a column's text, or an empty string where it is null or missing."""
    return "" if row.get(column) is None else text_of(row, column)


def turns_of(row: Row, column: str, role: str | None = None) -> list[Message]:
    """Return a column's messages; where `role` is given, plain text is one message of that role."""
    value = row.get(column)
    if value is None:
        raise RowError(Status.EMPTY, f"column `{column}` is null")
    if isinstance(value, str) and role is not None:
        return [{"role": role, "content": value}]
    if not isinstance(value, list):
        raise bad_format(
            column, "a list of messages" if role is None else "text or a list of messages", value
        )
    return [turn_of(item, f"{column}[{index}]") for index, item in enumerate(value)]


def turn_of(raw: Any, where: str) -> Message:
    """Turn `{role, content, ...}` or `{from, value, ...}` into a message; other keys pass through."""
    if not isinstance(raw, dict):
        raise bad_format(where, "a message {role, content} or {from, value}", raw)
    rest = drop_nulls(raw)
    name = rest.pop("role", None) or rest.pop("from", None)
    content = rest.pop("content", None)
    content = rest.pop("value", "" if "tool_calls" in rest else None) if content is None else content
    if not isinstance(name, str) or name.lower() not in ROLES:
        raise bad_format(
            where, "a role such as system, user, assistant or tool", raw if name is None else name
        )
    if name.lower() in CALLS and isinstance(content, str):
        return {"role": "assistant", "content": "", "tool_calls": _calls(content, where), **rest}
    return {"role": ROLES[name.lower()], "content": _content(content, where), **rest}


def _content(value: Any, where: str) -> str:
    """Accept text, or a list of text parts as in OpenAI's API."""
    if isinstance(value, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in value):
        return "".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise bad_format(where, "text as the content", value)
    return value


def _calls(text: str, where: str) -> list[dict[str, Any]]:
    value = _json(text, where, "the JSON of a call {name, arguments}")
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise bad_format(where, "the JSON of a call {name, arguments}", value)
    return [{"type": "function", "function": call} for call in calls]


def tools_of(row: Row) -> tuple[dict[str, Any], ...] | None:
    """Return the tool schemas of column `tools`: a list of objects, or the JSON text of one."""
    value = row.get("tools")
    if isinstance(value, str):
        value = _json(value, "tools", "the JSON of a list of tools") if value.strip() else None
    else:
        value = drop_nulls(value)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise bad_format("tools", "a list of tool schemas", value)
    return tuple(value) or None


def _json(text: str, where: str, expected: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad_format(where, expected, text) from error


def system_turns(row: Row, turns: Sequence[Message] = ()) -> list[Message]:
    """Return the message of column `system`, unless the conversation brings its own or there is none."""
    text = optional_text(row, "system")
    has_own = bool(turns) and turns[0]["role"] == "system"
    return [] if has_own or not text else [{"role": "system", "content": text}]


def history_turns(row: Row) -> list[Message]:
    """Return the messages of column `history`, a list of `[question, answer]`."""
    history = row.get("history")
    if history is None:
        return []
    if not isinstance(history, list):
        raise bad_format("history", "a list of [question, answer]", history)
    return [turn for index, pair in enumerate(history) for turn in _exchange(pair, f"history[{index}]")]


def _exchange(pair: Any, where: str) -> list[Message]:
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        raise bad_format(where, "[question, answer], both text", pair)
    return [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]


def ending_with_response(turns: Sequence[Message], column: str) -> tuple[Message, ...]:
    """Cut off what follows the last assistant turn, where nothing is ever scored.

    Raises `RowError`: `no_response_tokens` without an assistant turn, `empty` where the last one is blank.
    """
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=None)
    if last is None:
        roles = ", ".join(turn["role"] for turn in turns) or "no turn at all"
        raise RowError(Status.NO_RESPONSE_TOKENS, f"column `{column}`: no assistant turn, only {roles}")
    if not turns[last]["content"].strip() and not turns[last].get("tool_calls"):
        raise RowError(Status.EMPTY, f"column `{column}`: the response is empty")
    return tuple(turns[: last + 1])
