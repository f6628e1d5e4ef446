"""A core-set as LLaMA-Factory trains on it: rows in its sharegpt formatting, and the dataset_info.json that names them.

Its converters (0.9.5) take turns in which who asks and who answers alternate, and pass over any other row with a
warning; what they would pass over is left out here. A call of tools is the JSON of the call in place of words, the
tools themselves are JSON text.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from davir_ray.corpus.example import Example, Message, is_left_out, shared_turns
from davir_ray.tokens.tool_calls import CallForm, formed

SHAREGPT: dict[str, Any] = {
    "formatting": "sharegpt",
    "columns": {"messages": "conversations", "system": "system", "tools": "tools"},
    "tags": {
        "role_tag": "from",
        "content_tag": "value",
        "user_tag": "human",
        "assistant_tag": "gpt",
        "observation_tag": "observation",
        "function_tag": "function_call",
        "system_tag": "system",
    },
}
"""What dataset_info.json says of rows that are written here."""
RANKED = {"chosen": "chosen", "rejected": "rejected"}

ALPACA = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output"},
    "query_response": {"prompt": "query", "response": "response"},
    "question_answer": {"prompt": "question", "response": "answer"},
    "prompt_completion": {"prompt": "prompt", "response": "completion"},
    "preference_alpaca": {"prompt": "instruction", "query": "input", **RANKED},
    "preference": {"prompt": "prompt", **RANKED},
    "text": {"prompt": "text"},
}
"""Format of a corpus whose rows LLaMA-Factory reads as alpaca -> its name of a column -> the format's."""
BESIDE = {"system": "system", "history": "history"}
"""The same of what such rows may have besides."""
NOT_READ = ("tools", "functions", "chat_template_kwargs")
"""What it does not read of an alpaca row as we do."""

SPEAKERS = {"user": "human", "assistant": "gpt", "tool": "observation"}
ASKS = ("human", "observation")


def to_llama_factory(example: Example) -> dict[str, Any] | None:
    """Return a row of LLaMA-Factory's sharegpt formatting; None for one that it cannot train on as it was measured."""
    if example.messages is None or example.chat_template_kwargs:
        return None
    system, messages = _opening(example.messages)
    pair = example.rejected is not None
    shared = shared_turns(example) - (len(example.messages) - len(messages)) if pair else len(messages)
    sides = [messages, _opening(example.rejected or ())[1]] if pair else [messages]
    if any(is_left_out(turn) for turn in messages) or any(len(side) != shared + pair for side in sides):
        return None
    turns = [_turn(turn) for turn in messages[:shared]]
    endings = [_turn(side[shared]) for side in sides if pair]
    if not _alternate([*turns, *endings[:1]]) or any(one is None or one["from"] in ASKS for one in endings):
        return None
    row = {"conversations": turns, "system": system, "tools": _tools(example)}
    return row | (dict(zip(RANKED, endings, strict=True)) if pair else {})


def _opening(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """Part the system message from the turns."""
    if messages and messages[0]["role"] == "system":
        return messages[0]["content"], messages[1:]
    return "", messages


def _turn(message: Message) -> dict[str, str] | None:
    """Return a turn; None for a call beside words, which has no place there, and for a second system message."""
    if not message.get("tool_calls"):
        speaker = SPEAKERS.get(message["role"])
        return None if speaker is None else {"from": speaker, "value": message["content"]}
    if message["content"].strip():
        return None
    (called,) = formed([message], CallForm("object"))
    calls = [call.get("function", call) for call in called["tool_calls"]]
    named = [{"name": one["name"], "arguments": one.get("arguments", {})} for one in calls]
    value = named[0] if len(named) == 1 else named
    return {"from": "function_call", "value": json.dumps(value, ensure_ascii=False)}


def _alternate(turns: Sequence[dict[str, str] | None]) -> bool:
    """Tell whether every turn has a place, who asks begins, and an answer ends."""
    asks = [None if turn is None else turn["from"] in ASKS for turn in turns]
    return bool(asks) and len(asks) % 2 == 0 and all(one == (at % 2 == 0) for at, one in enumerate(asks))


def _tools(example: Example) -> str:
    return json.dumps(list(example.tools), ensure_ascii=False) if example.tools else ""


def own_rows(format: str, renames: Mapping[str, str], schema: pa.Schema) -> dict[str, Any] | None:
    """Describe the user's own rows for LLaMA-Factory; None where it does not read them as davir does.

    renames: `corpus.columns` by the format's names. schema: of the rows. Every column that is named is there: it looks
    for all of them in every row.
    """
    if format not in ALPACA:
        return None
    names = {name: renames.get(own, own) for name, own in (ALPACA[format] | BESIDE).items()}
    present = {name: own for name, own in names.items() if own in schema.names}
    texts = [own for name, own in present.items() if name != "history"]
    if not all(_is_text(schema.field(own).type) for own in texts) or "prompt" not in present:
        return None
    if any(renames.get(name, name) in schema.names for name in NOT_READ):
        return None
    ranking = {"ranking": True} if "rejected" in present else {}
    return {"formatting": "alpaca", **ranking, "columns": present}


def _is_text(type_: pa.DataType) -> bool:
    return type_ in (pa.string(), pa.large_string())


def written_rows(pairs: bool) -> dict[str, Any]:
    """Describe rows that `to_llama_factory` wrote: conversations, or pairs."""
    if not pairs:
        return dict(SHAREGPT)
    return SHAREGPT | {"ranking": True, "columns": {**SHAREGPT["columns"], **RANKED}}


def dataset_info(entries: Iterable[tuple[str, str, dict[str, Any] | None]]) -> dict[str, Any]:
    """Return what dataset_info.json says: data set -> its folder and description.

    entries: name, folder beside the file, and description; None for what LLaMA-Factory does not read.
    """
    return {name: {"file_name": folder, **entry} for name, folder, entry in entries if entry}


def data_set_name(format: str, source: str) -> str:
    """Name the data set of an export format and of a source, if there are several, as LLaMA-Factory's lists take it."""
    name = "coreset" if format == "parquet" else format
    return f"{name}-{quote(source, safe='')}" if source else name
