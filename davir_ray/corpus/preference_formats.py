"""Rows that hold a chosen and a rejected response: one function a format, from a row to an example."""

import re
from typing import Any

from davir_ray.corpus.example import Example, Message
from davir_ray.corpus.sft_formats import alpaca_prompt, messages, required_prompt, sharegpt_turns
from davir_ray.corpus.turns import (
    Row,
    bad_format,
    ending_with_response,
    opened,
    surroundings,
    turn_of,
    turns_of,
)
from davir_ray.errors import RowError
from davir_ray.schema import Status

HH_TURN = re.compile(r"\n\n(Human|Assistant):")
"""What begins each turn of an HH transcript."""

SIDES = ("chosen", "rejected")
OTHER_ENDINGS = ("rejected_response", "rejected_messages", "rejected")


def preference(row: Row) -> Example:
    """Parse a prompt with a chosen and a rejected completion, each text or a list of messages."""
    return _pair(row, required_prompt(row), *(turns_of(row, side, "assistant") for side in SIDES))


def preference_alpaca(row: Row) -> Example:
    """Parse an instruction with a chosen and a rejected output."""
    return _pair(row, alpaca_prompt(row), *(turns_of(row, side, "assistant") for side in SIDES))


def preference_sharegpt(row: Row) -> Example:
    """Parse ShareGPT conversations with one chosen and one rejected turn."""
    return _pair(row, sharegpt_turns(row, "conversations"), *(_single_turn(row, side) for side in SIDES))


def _single_turn(row: Row, side: str) -> list[Message]:
    value = row.get(side)
    return [turn_of(value, side)] if isinstance(value, dict) else turns_of(row, side, "assistant")


def preference_implicit(row: Row) -> Example:
    """Parse two whole conversations that begin with the same prompt."""
    chosen, rejected = (turns_of(row, side) for side in SIDES)
    return _conversations(row, chosen, rejected)


def preference_messages(row: Row) -> Example:
    """Parse OpenAI messages with another ending: swift's `rejected_response` or `rejected_messages`, or `rejected`.

    Text takes the place of the last assistant turn. Messages are a whole conversation where they bring a prompt, or
    take the place of what follows the last user turn. A row without another ending is a conversation, and no pair.
    """
    turns = turns_of(row, "messages")
    column = next((name for name in OTHER_ENDINGS if row.get(name) is not None), None)
    if column is None:
        return messages(row)
    return _conversations(row, turns, _other_ending(row, column, turns), ("messages", column))


def _other_ending(row: Row, column: str, turns: list[Message]) -> list[Message]:
    value, ending = row[column], turns_of(row, column, "assistant")
    if _has_prompt(ending):
        return ending
    role = "assistant" if isinstance(value, str) else "user"
    last = max((index for index, turn in enumerate(turns) if turn["role"] == role), default=-1)
    return [*turns[: last if role == "assistant" else last + 1], *ending]


def preference_hh(row: Row) -> Example:
    """Parse two transcripts in the markup of Anthropic's HH data."""
    chosen, rejected = (_transcript(row, side) for side in SIDES)
    return _conversations(row, chosen, rejected)


def _transcript(row: Row, side: str) -> list[Message]:
    value = row.get(side)
    if value is None:
        raise RowError(Status.EMPTY, f"column `{side}` is null")
    before, *parts = HH_TURN.split(value) if isinstance(value, str) else [value]
    if not parts or before.strip():
        raise bad_format(side, r"a transcript that begins with '\n\nHuman:'", value)
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": roles[name], "content": text.removeprefix(" ")} for name, text in pairs]


def _pair(row: Row, prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> Example:
    chosen_end, rejected_end = (
        ending_with_response(chosen, "chosen"),
        ending_with_response(rejected, "rejected"),
    )
    return Example(messages=(*prompt, *chosen_end), rejected=(*prompt, *rejected_end), **surroundings(row))


def _conversations(
    row: Row, chosen: list[Message], rejected: list[Message], columns: tuple[str, str] = SIDES
) -> Example:
    whole, other = (
        (*opened(row, ending_with_response(turns, column)),)
        for turns, column in zip((chosen, rejected), columns, strict=True)
    )
    if _first_prompt(whole) != _first_prompt(other):
        named = " and ".join(f"`{column}`" for column in columns)
        raise RowError(Status.BAD_FORMAT, f"columns {named} do not begin with the same prompt")
    return Example(messages=whole, rejected=other, **surroundings(row))


def _first_prompt(turns: tuple[Message, ...]) -> list[Message]:
    first = next(index for index, turn in enumerate(turns) if turn["role"] == "assistant")
    return list(turns[:first])


def looks_explicit(row: Row) -> bool:
    """Tell whether the sides of a pair are completions, without a prompt in them."""
    return all(
        (isinstance(value, str) and not HH_TURN.match(value)) or (_is_turns(value) and not _has_prompt(value))
        for value in (row.get(side) for side in SIDES)
    )


def looks_implicit(row: Row) -> bool:
    """Tell whether the sides of a pair are whole conversations."""
    return all(_is_turns(turns := row.get(side)) and _has_prompt(turns) for side in SIDES)


def looks_hh(row: Row) -> bool:
    """Tell whether the sides of a pair are HH transcripts."""
    return all(isinstance(row.get(side), str) and HH_TURN.match(row[side]) for side in SIDES)


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) for turn in value)


def _has_prompt(turns: Any) -> bool:
    return any((turn.get("role") or turn.get("from")) in ("user", "human", "system") for turn in turns)
