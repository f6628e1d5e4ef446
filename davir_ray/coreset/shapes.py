"""Examples -> rows in the shapes that trainers read."""

from collections.abc import Sequence
from typing import Any

from davir_ray.corpus.example import Example, Message, is_left_out, shared_turns, unmarked
from davir_ray.schema import IGNORED
from davir_ray.tokens.tool_calls import AS_GIVEN, CallForm, formed


def to_messages(example: Example) -> dict[str, Any]:
    """Return `{messages}`, or for pairs two whole conversations `{chosen, rejected}`; `tools` where there are some."""
    if example.messages is None:
        return _without_messages(example)
    if example.rejected is None:
        return {"messages": list(example.messages)} | _tools(example)
    return {"chosen": list(example.messages), "rejected": list(example.rejected)} | _tools(example)


def to_trl(example: Example, form: CallForm = AS_GIVEN) -> dict[str, Any] | None:
    """Return TRL's conversational rows: `{prompt, completion}`, or `{prompt, chosen, rejected}` for pairs.

    The completion is the last assistant turn that counts, and nothing follows it; the prompt of a pair is all that both
    sides begin with. None where no turn counts, or a side of a pair ends with one that does not: TRL knows no weights.
    form: of tool calls, which TRL hands to the template as they are. Raises `RowError` for calls that cannot have it.
    """
    if example.messages is None:
        return _without_messages(example)
    messages = formed(unmarked(example.messages), form)
    if example.rejected is None:
        last = _last_counted(example.messages)
        if last is None:
            return None
        return {"prompt": messages[:last], "completion": [messages[last]]} | _tools(example)
    if is_left_out(example.messages[-1]) or is_left_out(example.rejected[-1]):
        return None
    shared, rejected = shared_turns(example), formed(unmarked(example.rejected), form)
    sides = {"prompt": messages[:shared], "chosen": messages[shared:], "rejected": rejected[shared:]}
    return sides | _tools(example)


def _last_counted(messages: Sequence[Message]) -> int | None:
    answers = (
        at for at, turn in enumerate(messages) if turn["role"] == "assistant" and not is_left_out(turn)
    )
    return max(answers, default=None)


def _tools(example: Example) -> dict[str, Any]:
    """Return what TRL reads beside the turns, where there is some."""
    tools = {} if example.tools is None else {"tools": list(example.tools)}
    given = example.chat_template_kwargs
    return tools if given is None else {**tools, "chat_template_kwargs": given}


def _without_messages(example: Example) -> dict[str, Any]:
    """Return `{text}`, or `{input_ids, labels}` with -100 where a token does not count."""
    if example.text is not None:
        return {"text": example.text}
    ids, scored = example.input_ids or (), example.scored or ()
    labels = [token if counts else IGNORED for token, counts in zip(ids, scored, strict=True)]
    return {"input_ids": list(ids), "labels": labels}
