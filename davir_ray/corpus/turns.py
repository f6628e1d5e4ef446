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

WEIGHTS = ("weight", "loss", "train", "training", "loss_weight", "loss_scale")
"""What OpenAI and Mistral, swift, axolotl and others call the key that leaves a turn out of the loss mask."""

MEDIA = ("image", "images", "video", "videos", "audio", "audios", "rejected_images")
"""Columns and keys that hold what no text can stand for."""

UNWEIGHTED = ("train_detail",)
"""What axolotl calls the key that leaves a part of a turn out of the loss mask."""

CALL_KEYS = ("tool_calls", "function_call")
OUR_KEYS = frozenset((*WEIGHTS, *MEDIA, *UNWEIGHTED, *CALL_KEYS))
"""Keys of a turn, beside role and content, that are obeyed or refused; a template gets the others as they are."""


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


def says_nothing(value: Any) -> bool:
    """Tell whether a value is null, blank, or a list or an object of nothing else."""
    if isinstance(value, list | dict):
        return all(says_nothing(item) for item in (value.values() if isinstance(value, dict) else value))
    return value is None or (isinstance(value, str | bytes) and not value.strip())


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
    rest: dict[str, Any] = drop_nulls(raw)
    name = rest.pop("role", None) or rest.pop("from", None)
    if not isinstance(name, str) or name.lower() not in ROLES:
        raise bad_format(
            where, "a role such as system, user, assistant or tool", raw if name is None else name
        )
    role = ROLES[name.lower()]
    mark: dict[str, Any] = {}
    calls: dict[str, Any] = {}
    if not OUR_KEYS.isdisjoint(rest):
        mark = _weight(rest, role, where)
        _check_keys(rest, where)
        calls = _own_calls(rest, where)
    content = rest.pop("content", None)
    content = rest.pop("value", "" if calls else None) if content is None else content
    if name.lower() in CALLS and isinstance(content, str) and not calls:
        content, calls = "", _calls(content, where)
    return {"role": role, "content": _content(content, where), **calls, **rest, **mark}


def _weight(rest: dict[str, Any], role: str, where: str) -> dict[str, Any]:
    """Take the weights out of a turn; return `{weight: 0}` for an assistant turn that is not to be learnt."""
    given = {key: rest.pop(key) for key in WEIGHTS if key in rest}
    for key, value in given.items():
        if not isinstance(value, int | float) or value not in (0, 1):
            raise bad_format(f"{where}.{key}", "a weight of 0, 1, true or false", value)
        if value and role != "assistant" and key in ("train", "training"):
            reason = (
                f"column `{where}.{key}`: true on a turn of the {role}; only assistant turns are trained on"
            )
            raise RowError(Status.BAD_FORMAT, reason)
    if len({bool(value) for value in given.values()}) > 1:
        raise bad_format(where, f"one weight, not {' and '.join(given)} that contradict each other", given)
    return {"weight": 0} if role == "assistant" and not all(given.values()) else {}


def _check_keys(rest: dict[str, Any], where: str) -> None:
    """Raise for keys that change what a turn says or how it counts, and that nothing here can obey."""
    for key in (*MEDIA, *UNWEIGHTED):
        if not says_nothing(rest.get(key)):
            is_medium = key in MEDIA
            why = (
                "images, video and audio are not supported"
                if is_medium
                else "parts of a turn cannot be weighted"
            )
            raise RowError(Status.BAD_FORMAT, f"column `{where}.{key}`: found {describe(rest[key])}; {why}")


def _content(value: Any, where: str) -> str:
    """Accept text, or a list of text parts as in OpenAI's API."""
    if isinstance(value, list):
        return "".join(_part(part, f"{where}.content[{index}]") for index, part in enumerate(value))
    if not isinstance(value, str):
        raise bad_format(where, "text as the content", value)
    return value


def _part(part: Any, where: str) -> str:
    text = part.get("text") if isinstance(part, dict) else None
    kind = _kind(part) if isinstance(part, dict) else "text"
    if kind in ("image", "video", "audio"):
        named = {"image": "an image part", "audio": "an audio part"}.get(kind, f"a {kind} part")
        plural = "images" if kind == "image" else kind
        verb = "are" if kind == "image" else "is"
        raise RowError(Status.BAD_FORMAT, f"{named} at {where}; {plural} {verb} not supported")
    if kind != "text" or not isinstance(text, str):
        raise bad_format(where, "a text part {type: text, text}", part)
    return text


def _kind(part: dict[str, Any]) -> str:
    """Return what a content part holds: text, image, video, audio, or the type that it names."""
    name = str(part.get("type") or next((key for key in MEDIA if not says_nothing(part.get(key))), "text"))
    media = (one for one in ("image", "video", "audio", "text") if one in name)
    return next(media, name)


def _own_calls(rest: dict[str, Any], where: str) -> dict[str, Any]:
    """Take the calls out of a turn: `tool_calls`, or OpenAI's older `function_call`."""
    found = {
        key: value
        for key in ("tool_calls", "function_call")
        if not says_nothing(value := rest.pop(key, None))
    }
    if not found:
        return {}
    if len(found) > 1:
        raise bad_format(where, "tool_calls or function_call, not both", found)
    ((key, value),) = found.items()
    at = f"{where}.{key}"
    if isinstance(value, str):
        value = _json(value, at, "a call, or the JSON of one")
    calls = value if key == "tool_calls" else [{"type": "function", "function": value}]
    if not isinstance(calls, list) or not all(map(_names_function, calls)):
        raise bad_format(at, "a list of calls {type: function, function: {name, arguments}}", value)
    return {"tool_calls": calls}


def _names_function(call: Any) -> bool:
    function = call.get("function", call) if isinstance(call, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _calls(text: str, where: str) -> dict[str, Any]:
    """Read the JSON of a call, or of several, that a turn has for its text."""
    value = _json(text, where, "the JSON of a call {name, arguments}")
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise bad_format(where, "the JSON of a call {name, arguments}", value)
    return {"tool_calls": [{"type": "function", "function": call} for call in calls]}


def surroundings(row: Row) -> dict[str, Any]:
    """Return what belongs to a conversation beside its turns: the fields `tools` and `chat_template_kwargs`."""
    return {"tools": tools_of(row), "chat_template_kwargs": _template_kwargs(row)}


def tools_of(row: Row) -> tuple[dict[str, Any], ...] | None:
    """Return the tool schemas of column `tools`: a list of objects, or the JSON text of one.

    `functions`, OpenAI's older name, holds what stands under `function` there.
    """
    tools = _objects(row, "tools", "a list of tool schemas")
    functions = _objects(row, "functions", "a list of function schemas")
    if tools and functions:
        raise bad_format("functions", "tools or functions, not both", list(functions))
    return tools or tuple({"type": "function", "function": one} for one in functions) or None


def _objects(row: Row, column: str, expected: str) -> tuple[dict[str, Any], ...]:
    value = _decoded(row, column, f"the JSON of {expected}")
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise bad_format(column, expected, value)
    return tuple(value)


def _template_kwargs(row: Row) -> dict[str, Any] | None:
    """Return column `chat_template_kwargs`, which TRL hands to the chat template of this row."""
    value = _decoded(row, "chat_template_kwargs", "the JSON of an object") or None
    if value is not None and not isinstance(value, dict):
        raise bad_format("chat_template_kwargs", "an object", value)
    return value


def _decoded(row: Row, column: str, expected: str) -> Any:
    """Return the value of a column that may be written as JSON text; an empty list where it says nothing."""
    value = row.get(column)
    if isinstance(value, str) and value.strip():
        return _json(value, column, expected)
    return [] if value is None or isinstance(value, str) else drop_nulls(value)


def _json(text: str, where: str, expected: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad_format(where, expected, text) from error


def opened(row: Row, turns: Sequence[Message]) -> list[Message]:
    """Put columns `system` and `history` before the turns of a row.

    A system turn that the conversation brings itself stays in front, and `system` is left out (see `overruled`).
    """
    own = list(turns[:1]) if turns and turns[0]["role"] == "system" else []
    text = optional_text(row, "system")
    system = own or ([{"role": "system", "content": text}] if text else [])
    return [*system, *history_turns(row), *turns[len(own) :]]


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
        roles = ", only " + ", ".join(turn["role"] for turn in turns) if turns else "; it has no turn"
        raise RowError(Status.NO_RESPONSE_TOKENS, f"column `{column}`: no assistant turn{roles}")
    counted = [turn for turn in turns if turn["role"] == "assistant" and turn.get("weight") != 0]
    if not counted:
        raise RowError(Status.NO_RESPONSE_TOKENS, f"column `{column}`: every assistant turn has weight 0")
    if not counted[-1]["content"].strip() and not counted[-1].get("tool_calls"):
        raise RowError(Status.EMPTY, f"column `{column}`: the response is empty")
    return tuple(turns[: last + 1])
