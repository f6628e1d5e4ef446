"""How a chat template takes tool calls: their arguments as an object or as JSON text, beside empty or null content.

OpenAI sends arguments as text. Most templates write `arguments | tojson` or walk over them, and quote a text once more
or fail; a few put the text down as it is, and fail on an object. Some write calls only where the content is null.
Which of them a template is, is asked of the template itself: a call is rendered in each way.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from davir_ray.corpus.example import Message
from davir_ray.errors import RowError
from davir_ray.schema import Status


@dataclass(frozen=True)
class CallForm:
    """arguments: `either` stays as the row has it. null_content: whether calls without words come with null."""

    arguments: Literal["object", "text", "either"] = "either"
    null_content: bool = False


AS_GIVEN = CallForm()

KEY, VALUE = "davirKEY", "davirVALUE"
PROBE = {KEY: VALUE}
PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": "davir",
        "description": "a",
        "parameters": {"type": "object", "properties": {"a": {"type": "string", "description": "a"}}},
    },
}
"""Stands for the tools of a row, where none is at hand."""

Chat = Callable[[Sequence[Message]], tuple[str, Any]]


def call_form(chat: Chat) -> CallForm:
    """Ask a chat template how it takes calls; chat: messages -> the rendered text, or `RowError`.

    A template that leaves all calls out gets them as they are.
    """
    for content in ("", None):
        as_object, as_text = (_rendered(chat, form, content) for form in (PROBE, json.dumps(PROBE)))
        # Python's own spelling of an object means that the template took it for a text.
        takes_object = as_object is not None and str(PROBE) not in as_object
        takes_text = as_text is not None and json.dumps(PROBE) in as_text
        if takes_object and as_object == as_text:
            return CallForm("either", content is None)
        if takes_object or takes_text:
            return CallForm("object" if takes_object else "text", content is None)
    return CallForm()


def _rendered(chat: Chat, arguments: Any, content: str | None) -> str | None:
    """Render a call in the first conversation that the template takes; None where the arguments do not come out."""
    call = {"id": "davircall", "type": "function", "function": {"name": "davir", "arguments": arguments}}
    asked: list[Message] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": content, "tool_calls": [call]},
    ]
    reply: Message = {"role": "tool", "name": "davir", "tool_call_id": "davircall", "content": "b"}
    for messages in (asked, [*asked, reply, {"role": "assistant", "content": "c"}]):
        try:
            text, _ = chat(messages)
        except RowError:
            continue
        if KEY in text and VALUE in text:
            return text
    return None


def formed(messages: Sequence[Message], form: CallForm) -> list[Message]:
    """Return messages with their calls in the form that a template wants. Raises `RowError` for broken JSON."""
    return [_message(message, index, form) for index, message in enumerate(messages)]


def _message(message: Message, index: int, form: CallForm) -> Message:
    if not message.get("tool_calls"):
        return message
    calls = [
        _call(call, f"messages[{index}].tool_calls[{number}]", form.arguments)
        for number, call in enumerate(message["tool_calls"])
    ]
    content = None if form.null_content and not message["content"] else message["content"]
    return message | {"content": content, "tool_calls": calls}


def _call(call: dict[str, Any], where: str, wanted: str) -> dict[str, Any]:
    if "function" in call:
        return call | {"function": _call(call["function"], f"{where}.function", wanted)}
    if "arguments" not in call:
        return call
    return call | {"arguments": _form(call["arguments"], f"{where}.arguments", wanted)}


def _form(arguments: Any, where: str, wanted: str) -> Any:
    if wanted == "text" and not isinstance(arguments, str):
        return json.dumps(arguments, ensure_ascii=False)
    if wanted != "object" or not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    shown = ascii(arguments if len(arguments) <= 40 else arguments[:40] + "...")
    raise RowError(Status.BAD_FORMAT, f"`{where}`: expected the JSON text of an object, found {shown}")
