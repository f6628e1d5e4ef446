"""One row of any corpus format, in the one shape that the rest of the pipeline knows.

`example_id` is a hash of this content alone: file, position and other columns never enter it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

Message = dict[str, Any]
"""`{"role": str, "content": str, ...}`: what a chat template receives. JSON-able; other keys pass through.

`weight` is for us: 0 leaves an assistant turn out of the loss mask; it is there only where it is 0.
"""


@dataclass(frozen=True, slots=True)
class Example:
    """Exactly one of `messages`, `text` and `input_ids` is set.

    messages: the conversation, ending with the (chosen) response.
    rejected: for preference pairs, the conversation that ends with the rejected response.
    tools: tool schemas for the chat template. chat_template_kwargs: what else this row gives to it.
    text: the `text` format; the whole text is the response.
    input_ids, scored: the pre-tokenised format.
    """

    messages: tuple[Message, ...] | None = None
    rejected: tuple[Message, ...] | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    text: str | None = None
    input_ids: tuple[int, ...] | None = None
    scored: tuple[bool, ...] | None = None

    @property
    def example_id(self) -> bytes:
        """16 bytes that are equal for equal content."""
        content = {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}
        return content_hash(content)


def shared_turns(example: Example) -> int:
    """Count the turns with which both sides of a pair begin; each keeps at least one of its own."""
    one, other = example.messages or (), example.rejected or ()
    most = min(len(one), len(other)) - 1
    return next((index for index in range(most) if one[index] != other[index]), most)


def unmarked(messages: Iterable[Message]) -> list[Message]:
    """Return messages without our marks."""
    return [{key: value for key, value in one.items() if key != "weight"} for one in messages]


def is_left_out(message: Message) -> bool:
    """Tell whether a message is an answer of weight 0."""
    return message["role"] == "assistant" and message.get("weight") == 0


def content_hash(content: Any) -> bytes:
    """Hash JSON-able content to 16 bytes; the order of keys does not matter."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return blake2b(text.encode("ascii"), digest_size=16).digest()
