"""Rows that hold one response: one function a format, from a row to an example."""

from typing import Any

from davir_ray.corpus.example import Example, Message
from davir_ray.corpus.turns import (
    Row,
    bad_format,
    ending_with_response,
    opened,
    optional_text,
    surroundings,
    text_of,
    turns_of,
)
from davir_ray.errors import RowError
from davir_ray.schema import IGNORED, Status


def messages(row: Row) -> Example:
    """Parse OpenAI messages."""
    turns = ending_with_response(turns_of(row, "messages"), "messages")
    return Example(messages=(*opened(row, turns),), **surroundings(row))


def prompt_completion(row: Row) -> Example:
    """Parse a prompt and its completion, each text or a list of messages."""
    prompt = required_prompt(row)
    completion = ending_with_response(turns_of(row, "completion", "assistant"), "completion")
    return Example(messages=(*prompt, *completion), **surroundings(row))


def required_prompt(row: Row) -> list[Message]:
    """Return column `prompt`, text or a list of messages, after system message and history."""
    if row.get("prompt") is None:
        raise bad_format("prompt", "text or a list of messages", None)
    return opened(row, turns_of(row, "prompt", "user"))


def alpaca(row: Row) -> Example:
    """Parse an instruction, an optional input and an output."""
    response = ending_with_response(turns_of(row, "output", "assistant"), "output")
    return Example(messages=(*alpaca_prompt(row), *response), **surroundings(row))


def alpaca_prompt(row: Row) -> list[Message]:
    """Return system, history, and the instruction with its input on the next line, as in LLaMA-Factory."""
    extra = optional_text(row, "input")
    prompt = text_of(row, "instruction") + ("\n" + extra if extra.strip() else "")
    return opened(row, [{"role": "user", "content": prompt}])


def sharegpt(row: Row) -> Example:
    """Parse ShareGPT conversations, or swift's list of {human, assistant} exchanges."""
    column = "conversations" if row.get("conversations") is not None else "conversation"
    turns = sharegpt_turns(row, column)
    return Example(messages=ending_with_response(turns, column), **surroundings(row))


def sharegpt_turns(row: Row, column: str) -> list[Message]:
    """Return the turns of a ShareGPT column, after the system message."""
    value = row.get(column)
    if isinstance(value, list):
        value = [turn for item in value for turn in _swift_turns(item)]
    return opened(row, turns_of({column: value}, column))


def _swift_turns(item: Any) -> list[Any]:
    if isinstance(item, dict) and "human" in item and "assistant" in item:
        rest = {key: value for key, value in item.items() if key not in ("human", "assistant")}
        return [
            {"from": "human", "value": item["human"]},
            {"from": "gpt", "value": item["assistant"], **rest},
        ]
    return [item]


def query_response(row: Row) -> Example:
    """Parse swift's query and response."""
    return _asked(row, "query", "response")


def question_answer(row: Row) -> Example:
    """Parse a question and its answer."""
    return _asked(row, "question", "answer")


def _asked(row: Row, asked: str, answered: str) -> Example:
    response = ending_with_response(turns_of(row, answered, "assistant"), answered)
    question = {"role": "user", "content": text_of(row, asked)}
    return Example(messages=(*opened(row, [question]), *response), **surroundings(row))


def text(row: Row) -> Example:
    """Parse plain text, all of which is the response."""
    if row.get("text") is None or row["text"] == "":
        raise RowError(Status.EMPTY, "column `text` is null or empty")
    value = text_of(row, "text")
    if not value.strip():
        raise RowError(Status.EMPTY, "column `text` is blank")
    return Example(text=value)


def tokenized(row: Row) -> Example:
    """Parse token ids with labels or masks; where several are given, a token counts if all of them say so.

    Positions that `attention_mask` names as padding are left out. Several texts in one row are refused: each would be
    measured with the ones before it for its prompt.
    """
    ids = _integers(row, "input_ids")
    _check_one_text(row)
    scored = [True] * len(ids)
    for column in ("completion_mask", "assistant_masks"):
        if row.get(column) is not None:
            scored = [s and m == 1 for s, m in zip(scored, _mask(row, column, ids), strict=True)]
    if row.get("labels") is not None:
        scored = [s and n for s, n in zip(scored, _labelled(row, ids), strict=True)]
    real = [True] * len(ids)
    if row.get("attention_mask") is not None:
        real = [m == 1 for m in _mask(row, "attention_mask", ids)]
    return _tokenized(row, [(i, s) for i, s, r in zip(ids, scored, real, strict=True) if r])


def _check_one_text(row: Row) -> None:
    positions, lengths = row.get("position_ids"), row.get("seq_lengths")
    restarts = isinstance(positions, list) and positions.count(0) > 1
    if restarts or (isinstance(lengths, list) and len(lengths) > 1):
        column = "position_ids" if restarts else "seq_lengths"
        raise bad_format(column, "one text a row, not several that are packed together", row[column])


def _tokenized(row: Row, positions: list[tuple[int, bool]]) -> Example:
    if all(row.get(column) is None for column in ("labels", "completion_mask", "assistant_masks")):
        raise RowError(
            Status.BAD_FORMAT, "columns `labels`, `completion_mask`, `assistant_masks` are all null"
        )
    if not any(scored for _, scored in positions):
        raise RowError(
            Status.NO_RESPONSE_TOKENS, "column `input_ids`: the labels or masks leave no token to score"
        )
    return Example(input_ids=tuple(i for i, _ in positions), scored=tuple(s for _, s in positions))


def _integers(row: Row, column: str) -> list[int]:
    values = row.get(column)
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise bad_format(column, "a list of whole numbers", values)
    return values


def _mask(row: Row, column: str, ids: list[int]) -> list[int]:
    values = row.get(column)
    values = (
        [int(value) if type(value) is bool else value for value in values]
        if isinstance(values, list)
        else values
    )
    mask = _integers({column: values}, column)
    if len(mask) != len(ids) or any(value not in (0, 1) for value in mask):
        raise bad_format(column, f"{len(ids)} values of 0 or 1, as many as input_ids", values)
    return mask


def _labelled(row: Row, ids: list[int]) -> list[bool]:
    labels = _integers(row, "labels")
    if len(labels) != len(ids):
        raise bad_format("labels", f"{len(ids)} labels, as many as input_ids", labels)
    for index, (label, token) in enumerate(zip(labels, ids, strict=True)):
        if label not in (IGNORED, token):
            raise bad_format(f"labels[{index}]", f"{IGNORED} or input_ids[{index}], which is {token}", label)
    return [label != IGNORED for label in labels]
