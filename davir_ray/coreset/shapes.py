"""Examples -> rows in the shapes that trainers read."""

from typing import Any

from davir_ray.corpus.example import Example, shared_turns

IGNORED = -100
"""The label of a token that does not count."""


def to_messages(example: Example) -> dict[str, Any]:
    """Return `{messages}`, or for pairs two whole conversations `{chosen, rejected}`; `tools` where there are some."""
    if example.messages is None:
        return _without_messages(example)
    if example.rejected is None:
        return {"messages": list(example.messages)} | _tools(example)
    return {"chosen": list(example.messages), "rejected": list(example.rejected)} | _tools(example)


def to_trl(example: Example) -> dict[str, Any]:
    """Return TRL's conversational rows: `{prompt, completion}`, or `{prompt, chosen, rejected}` for pairs.

    The completion is the last assistant turn; the prompt of a pair is all that both sides begin with.
    """
    if example.messages is None:
        return _without_messages(example)
    if example.rejected is None:
        *prompt, completion = example.messages
        return {"prompt": prompt, "completion": [completion]} | _tools(example)
    shared = shared_turns(example)
    return {
        "prompt": list(example.messages[:shared]),
        "chosen": list(example.messages[shared:]),
        "rejected": list(example.rejected[shared:]),
    } | _tools(example)


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
