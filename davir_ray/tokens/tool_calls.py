"""How a chat template takes the arguments of a tool call: as an object, as JSON text, or either.

OpenAI sends them as text. Most templates write `arguments | tojson` or walk over them, and quote a text once more or
fail; a few put the text down as it is, and fail on an object. Which of them a template is, is asked of the template
itself: a call is rendered both ways.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

from davir_ray.corpus.example import Message
from davir_ray.errors import RowError
from davir_ray.schema import Status

Arguments = Literal["object", "text", "either"]

KEY, VALUE = "davirKEY", "davirVALUE"
PROBE = {KEY: VALUE}

Chat = Callable[[Sequence[Message]], tuple[str, Any]]


def arguments_of(chat: Chat) -> Arguments:
    """Ask a chat template how it takes arguments; chat: messages -> the rendered text, or `RowError`.

    `either` where it takes both, or where calls do not come out at all.
    """
    as_object, as_text = _rendered(chat, PROBE), _rendered(chat, json.dumps(PROBE))
    takes_text = as_text is not None and json.dumps(PROBE) in as_text
    # Python's own spelling of an object means that the template took it for a text.
    takes_object = as_object is not None and str(PROBE) not in as_object
    if takes_object and not takes_text:
        return "object"
    return "text" if takes_text and not takes_object else "either"


def _rendered(chat: Chat, arguments: Any) -> str | None:
    """Render a call in the first conversation that the template takes; None where the arguments do not come out."""
    call = {"id": "davircall", "type": "function", "function": {"name": "davir", "arguments": arguments}}
    asked = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    reply = {"role": "tool", "name": "davir", "tool_call_id": "davircall", "content": "b"}
    for messages in (asked, [*asked, reply, {"role": "assistant", "content": "c"}]):
        try:
            text, _ = chat(messages)
        except RowError:
            continue
        if KEY in text and VALUE in text:
            return text
    return None


def with_arguments(messages: Sequence[Message], wanted: Arguments) -> list[Message]:
    """Return messages whose calls have their arguments in the form that a template wants. Raises `RowError`."""
    if wanted == "either":
        return list(messages)
    return [_message(message, index, wanted) for index, message in enumerate(messages)]


def _message(message: Message, index: int, wanted: Arguments) -> Message:
    if not message.get("tool_calls"):
        return message
    calls = [
        _call(call, f"messages[{index}].tool_calls[{number}]", wanted)
        for number, call in enumerate(message["tool_calls"])
    ]
    return message | {"tool_calls": calls}


def _call(call: dict[str, Any], where: str, wanted: Arguments) -> dict[str, Any]:
    if "function" in call:
        return call | {"function": _call(call["function"], f"{where}.function", wanted)}
    if "arguments" not in call:
        return call
    return call | {"arguments": _form(call["arguments"], f"{where}.arguments", wanted)}


def _form(arguments: Any, where: str, wanted: Arguments) -> Any:
    if wanted == "text":
        return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    shown = ascii(arguments if len(arguments) <= 40 else arguments[:40] + "...")
    raise RowError(Status.BAD_FORMAT, f"`{where}`: expected the JSON text of an object, found {shown}")
