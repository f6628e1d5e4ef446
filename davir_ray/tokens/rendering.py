"""One conversation, text or pre-tokenised row -> its ids, and which of them count.

The rules, the same for measuring and for training:

- The text is tokenised once, whole; characters are mapped to tokens by offsets, never by tokenising a piece.
- An answer is what an assistant message puts into the text, tool calls and kept reasoning included, together
  with the token that ends the turn (`<|im_end|>`, `<|eot_id|>`, `</s>`). A newline after that token does not
  count. A template that ends answers with no token of its own leaves them without one.
- `all_assistant` counts every answer, `last_assistant` the last one, `completion` those after the last user
  message, `all` every token. Of these, an answer whose message has weight 0 does not count; it stays in the text.
- The first token of a sequence never counts: nothing precedes it.
- Nothing follows the last token that counts: later tokens cannot change its probability, so they are cut.
- A text row is BOS where the tokenizer adds one, the text, and EOS where there is one; every token counts. A
  pre-tokenised row brings its ids and its own marks. `score_on` and `template` say nothing about these two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from davir_ray.config import TokensConfig
from davir_ray.corpus.example import Example, Message, is_left_out, unmarked
from davir_ray.errors import RowError
from davir_ray.schema import Status
from davir_ray.tokens.chat import render_chat
from davir_ray.tokens.masks import covered, tokens_of
from davir_ray.tokens.templates import BARE, Rendered, said
from davir_ray.tokens.tokenizer import Tokenizer, Tools
from davir_ray.tokens.tool_calls import formed

Ids = NDArray[np.int32]
Marks = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answer:
    """The last answer: its header is tokens [header, first), it is tokens [first, stop)."""

    header: int
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Tokenised:
    """ids: int32 [T]. scored: bool [T], which count. answer: the last answer, where it was asked for."""

    ids: Ids
    scored: Marks
    answer: Answer | None


def tokenise(
    tokenizer: Tokenizer,
    config: TokensConfig,
    example: Example,
    *,
    rejected: bool = False,
    answer: bool = False,
) -> Tokenised:
    """Turn an example into ids with the counted positions marked. Raises `RowError`.

    rejected: take the rejected conversation. answer: find the last answer and its header too.
    """
    messages = example.rejected if rejected else example.messages
    if messages is not None:
        return _conversation(tokenizer, config, _Chat(messages, example), answer)
    if rejected:
        raise RowError(Status.BAD_FORMAT, "the row has no rejected response")
    if example.text is not None:
        return _text(tokenizer, example.text)
    return _own_ids(tokenizer, example)


class _Chat:
    """One conversation of an example, its messages as they are and as a template gets them."""

    def __init__(self, messages: Sequence[Message], example: Example) -> None:
        self.messages, self.tools, self.variables = messages, example.tools, example.chat_template_kwargs


def given(tokenizer: Tokenizer, messages: Sequence[Message], tools: Tools) -> list[Message]:
    """Return messages for the template: without our marks, with calls in the form that it wants. Raises `RowError`."""
    bare = unmarked(messages)
    if tokenizer.template != "chat" or not any(one.get("tool_calls") for one in bare):
        return bare
    return formed(bare, tokenizer.call_form(tools))


def _conversation(tokenizer: Tokenizer, config: TokensConfig, chat: _Chat, answer: bool) -> Tokenised:
    everything = config.score_on == "all"
    counted = [] if everything else _counted(chat.messages, config.score_on)
    left_out = [at for at, message in enumerate(chat.messages) if is_left_out(message)] if everything else []
    last = _counted(chat.messages, "all_assistant")[-1:] if answer and everything else []
    wanted = sorted({*counted, *left_out, *last})
    rendered = _render(tokenizer, chat, wanted, answer)
    ids, offsets = tokenizer.encode(rendered.text)
    chars = covered(offsets)
    if tokenizer.template != "chat":
        ids, chars = _begun(tokenizer, ids, chars)
    scored = np.full(len(ids), everything)
    answers = {
        index: _answer(rendered.text, chars, turn.header, turn.start, turn.end)
        for index, turn in zip(wanted, rendered.turns, strict=True)
    }
    for index in (*counted, *left_out):
        scored[answers[index].first : answers[index].stop] = not everything
    return _finished(ids, scored, answers[(counted or last)[-1]] if answer else None)


def _counted(messages: Sequence[Message], score_on: str) -> list[int]:
    """Return the indices of the messages that count. Raises `RowError` where none has words."""
    counted = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if not counted:
        raise RowError(Status.NO_RESPONSE_TOKENS, "the conversation has no assistant message")
    if score_on == "last_assistant":
        counted = counted[-1:]
    elif score_on == "completion":
        users = [index for index, message in enumerate(messages) if message["role"] == "user"]
        counted = [index for index in counted if not users or index > users[-1]]
    if not counted:
        raise RowError(Status.NO_RESPONSE_TOKENS, "no assistant message follows the last user message")
    counted = [index for index in counted if not is_left_out(messages[index])]
    if not counted:
        raise RowError(
            Status.NO_RESPONSE_TOKENS,
            f"every assistant message that tokens.score_on {score_on} counts has weight 0",
        )
    if not any(_has_words(messages[index]) for index in counted):
        raise RowError(Status.EMPTY, "the response is empty")
    return counted


def _has_words(message: Message) -> bool:
    return bool(said(message).strip() or message.get("tool_calls"))


def _render(tokenizer: Tokenizer, chat: _Chat, wanted: Sequence[int], headers: bool) -> Rendered:
    messages = given(tokenizer, chat.messages, chat.tools)
    if tokenizer.template == "chat":
        return render_chat(tokenizer, messages, chat.tools, wanted, headers, chat.variables)
    if calls := [index for index, message in enumerate(messages) if message.get("tool_calls")]:
        reason = f"template {tokenizer.template} has no place for the tool calls of message {calls[0]}"
        raise RowError(Status.TEMPLATE_ERROR, reason)
    text, turns = BARE[tokenizer.template](messages, str(tokenizer.hf.eos_token))
    return Rendered(text, tuple(turns[index] for index in wanted))


def _begun(tokenizer: Tokenizer, ids: Ids, chars: NDArray[np.int64]) -> tuple[Ids, NDArray[np.int64]]:
    """Put BOS before a text, unless the tokenizer adds none or the text has it already."""
    bos = np.array(tokenizer.bos_ids, np.int32)
    if np.array_equal(ids[: len(bos)], bos):
        return ids, chars
    return np.concatenate([bos, ids]), np.concatenate([np.zeros((len(bos), 2), np.int64), chars])


def _answer(text: str, chars: NDArray[np.int64], header: int, start: int, end: int) -> Answer:
    first, stop = tokens_of(text, chars, start, end)
    before = int(np.searchsorted(chars[:, 0], header, side="left"))
    return Answer(min(before, first), first, stop)


def _text(tokenizer: Tokenizer, text: str) -> Tokenised:
    if not text.strip():
        raise RowError(Status.EMPTY, "the text is empty")
    ids, offsets = tokenizer.encode(text)
    ids, _ = _begun(tokenizer, ids, covered(offsets))
    eos = tokenizer.hf.eos_token_id
    if eos is not None and ids[-1] != eos:
        ids = np.append(ids, np.int32(eos))
    return _finished(ids, np.ones(len(ids), np.bool_), Answer(0, 1, len(ids)))


def _own_ids(tokenizer: Tokenizer, example: Example) -> Tokenised:
    ids = example.input_ids or ()
    marks = example.scored if example.scored is not None else (True,) * len(ids)
    if len(marks) != len(ids):
        raise RowError(Status.BAD_FORMAT, f"{len(ids)} input_ids but {len(marks)} marks of what counts")
    for position, token in enumerate(ids):
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < tokenizer.size:
            reason = (
                f"input_ids[{position}] is {token!r}; expected a whole number from 0 to {tokenizer.size - 1}"
            )
            raise RowError(Status.BAD_FORMAT, reason)
    scored = np.array(marks, np.bool_)
    return _finished(np.array(ids, np.int32), scored, _last_run(scored))


def _last_run(scored: Marks) -> Answer | None:
    """Return the last unbroken run of tokens that count: what a pre-tokenised row has for an answer."""
    counted = np.flatnonzero(scored)
    if not len(counted):
        return None
    stop = int(counted[-1]) + 1
    gaps = np.flatnonzero(~scored[:stop])
    first = int(gaps[-1]) + 1 if len(gaps) else 0
    return Answer(first, first, stop)


def _finished(ids: Ids, scored: Marks, answer: Answer | None) -> Tokenised:
    scored = scored.copy()
    scored[:1] = False
    counted = np.flatnonzero(scored)
    if not len(counted):
        raise RowError(Status.NO_RESPONSE_TOKENS, "no token of the row counts")
    stop = int(counted[-1]) + 1
    return Tokenised(ids[:stop], scored[:stop], answer)
