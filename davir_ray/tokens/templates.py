"""Templates that need no Jinja: messages -> text, and where each answer stands in it.

`alpaca`, as in LLaMA-Factory: the system message (or Stanford Alpaca's first sentence), an empty line, and
for each exchange `### Instruction:`, the user's words, an empty line, `### Response:`, the answer, EOS and an
empty line. The `input` of an Alpaca row is part of the user's words.

`plain`: the contents one after the other, with a newline between two of them unless one side has white space
at the joint; EOS after each answer, and nothing between an EOS and what follows it. No headers.

Both begin with BOS where the tokenizer adds one by itself. Each answer ends with EOS, which counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from davir_ray.corpus.example import Message
from davir_ray.errors import RowError
from davir_ray.schema import Status

ALPACA_SYSTEM = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer in a text: its header begins at `header`; its characters, EOS too, are [start, end)."""

    header: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text, with the answers that were asked for."""

    text: str
    turns: tuple[Turn, ...]


def said(message: Message) -> str:
    """Return the text of a message's content: a string, nothing, or the text parts of a list."""
    content = message.get("content")
    if isinstance(content, list | tuple):
        return "".join(part if isinstance(part, str) else str(part.get("text") or "") for part in content)
    return "" if content is None else str(content)


def render_alpaca(messages: Sequence[Message], eos: str) -> tuple[str, dict[int, Turn]]:
    """Render with the Alpaca prompt; the turns by message index. Raises `RowError` for other roles."""
    text, turns = "", {}
    for index, message in enumerate(messages):
        role, words = message["role"], said(message)
        if index == 0:
            text = f"{words if role == 'system' else ALPACA_SYSTEM}\n\n"
        if role == "user":
            text += f"### Instruction:\n{words}\n\n"
        elif role == "assistant":
            header = len(text)
            text += "### Response:\n"
            turns[index] = Turn(header, len(text), len(text) + len(words) + len(eos))
            text += f"{words}{eos}\n\n"
        elif index or role != "system":
            raise RowError(
                Status.TEMPLATE_ERROR, f"template alpaca has no place for message {index}, role {role!r}"
            )
    return text, turns


def render_plain(messages: Sequence[Message], eos: str) -> tuple[str, dict[int, Turn]]:
    """Render the bare contents; the turns by message index."""
    text, turns = "", {}
    for index, message in enumerate(messages):
        words = said(message)
        after_answer = index > 0 and messages[index - 1]["role"] == "assistant"
        if text and words and not (after_answer or text[-1].isspace() or words[0].isspace()):
            text += "\n"
        if message["role"] == "assistant":
            end = len(text) + len(words) + len(eos)
            turns[index] = Turn(len(text), len(text), end)
            words += eos
        text += words
    return text, turns


BARE: dict[str, Callable[[Sequence[Message], str], tuple[str, dict[int, Turn]]]] = {
    "alpaca": render_alpaca,
    "plain": render_plain,
}
"""The templates that any tokenizer with an EOS token can take, by name."""

TEMPLATES = ("chat", *BARE)
"""What `tokens.template` may be called; anything else is the path of a Jinja chat template."""
