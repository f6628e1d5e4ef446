"""The model's own chat template: messages -> text, and where each answer stands in it.

Two ways to find an answer, in this order:

1. The template marks it with `{% generation %}`. The marks decide where the answer begins.
2. The conversation is rendered twice, the second time with a mark in place of the answer. What stands before
   and after the mark stands before and after the answer too, so the answer is what is left, whatever the
   template did to it (trimmed it, took its reasoning out, wrote its tool calls). Text that the template puts
   between header and answer all by itself, such as an empty `<think>` block, is not part of the answer.
   Where a turn cannot be swapped (Mistral counts turns by their tool calls), the conversation up to the turn
   is rendered without and with it.

Both end an answer by the same rule (see `rendering`): its end-of-turn token counts, what follows does not.
"""

from collections.abc import Iterator, Sequence

from davir_ray.corpus.example import Message
from davir_ray.errors import RowError
from davir_ray.schema import Status
from davir_ray.tokens.templates import Rendered, Turn, said
from davir_ray.tokens.tokenizer import MARK, Span, Tokenizer, Tools, Variables


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    tools: Tools,
    wanted: Sequence[int],
    headers: bool,
    variables: Variables = None,
) -> Rendered:
    """Render a conversation and find the answers at the indices `wanted`.

    headers: find too where each answer's header begins; costs one rendering an answer. variables: what the row gives
    to the template. Raises `RowError`.
    """
    text, marks = tokenizer.chat(messages, tools, variables=variables)
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    marked = dict(zip(answers, marks, strict=True)) if len(marks) == len(answers) else {}
    finder = _Finder(tokenizer, messages, tools, variables, text)
    turns: list[Turn] = []
    for index in wanted:
        start, end = finder.close(*marked[index]) if index in marked else finder.find(index)
        finder.check(index, start, end)
        if turns and start < turns[-1].end:
            raise _lost(index, "it is not separate from the answer before it")
        turns.append(Turn(finder.header(index, start) if headers else start, start, end))
    return Rendered(text, tuple(turns))


class _Finder:
    """Finds answers in one rendered conversation."""

    def __init__(
        self, tokenizer: Tokenizer, messages: Sequence[Message], tools: Tools, variables: Variables, text: str
    ) -> None:
        self.tokenizer, self.messages, self.tools = tokenizer, messages, tools
        self.variables, self.text = variables, text

    def find(self, index: int) -> Span:
        """Return the characters of an answer and its end-of-turn token."""
        span = self._swap(index) or self._grow(index)
        if span and self.messages[index].get("tool_calls"):
            # Without the call the template may leave out the tool's reply too: take what both find.
            grown = self._grow(index) or span
            span = max(span[0], grown[0]), min(span[1], grown[1])
        if span is None:
            raise _lost(index, "it could not be told apart from the rest of the conversation")
        return span

    def _swap(self, index: int) -> Span | None:
        mark = _absent(self.text)
        swapped = [*self.messages]
        swapped[index] = {"role": "assistant", "content": mark}
        rendered = self._chat(swapped)
        before, found, after = (rendered or "").partition(mark)
        if not found or mark in after or not self.text.endswith(after):
            return None
        end = len(self.text) - len(after)
        start = len(before) if self.text.startswith(before) else self._prompt_length(index)
        return None if start is None or start > end else (start, self._closed(end))

    def _grow(self, index: int) -> Span | None:
        start = self._prompt_length(index)
        grown = self._chat(self.messages[: index + 1])
        if start is None or grown is None or not self.text.startswith(grown):
            return None
        return self.close(start, len(grown)) if start <= len(grown) else None

    def _prompt_length(self, index: int) -> int | None:
        prompt = self._chat(self.messages[:index], prompt=True)
        return len(prompt) if prompt and self.text.startswith(prompt) else None

    def _chat(self, messages: Sequence[Message], prompt: bool = False) -> str | None:
        try:
            return self.tokenizer.chat(messages, self.tools, prompt, self.variables)[0]
        except RowError:
            return None

    def _closed(self, end: int) -> int:
        closing = self.tokenizer.closing
        if closing and not self.text.startswith(closing, end):
            # Some templates end an answer in another way where a message follows it.
            return self.tokenizer.after_marker(self.text, end) or end
        return end + len(closing)

    def close(self, start: int, end: int) -> Span:
        """End a span that may hold more or less than the answer right after its end-of-turn token."""
        if self.tokenizer.closing and self.text.startswith(self.tokenizer.closing, end):
            return start, self._closed(end)
        body = self.text[start:end].rstrip()
        if self.tokenizer.marker_before(body, len(body)):
            return start, start + len(body)
        return start, self._closed(end)

    def check(self, index: int, start: int, end: int) -> None:
        """Raise unless what was found ends with what the message says."""
        message, body = self.messages[index], _squeeze(self.text[start:end])
        found, words = {body}, _squeeze(said(message))
        while marker := self.tokenizer.marker_before(body, len(body)):
            body = body.removesuffix(marker)
            found.add(body)
        answer = words.rpartition("</think>")[2]
        if message.get("tool_calls"):
            if not body or not self.tokenizer.reads("tool_calls"):
                raise _lost(index, "it leaves the tool calls out")
        elif not any(text.endswith(answer) for text in found):
            read, wrote = _short(said(message)), _short(self.text[start:end])
            raise _lost(index, f"it reads {read}, the template wrote {wrote}")

    def header(self, index: int, start: int) -> int:
        """Return where the template's text between the message before and the answer begins."""
        before = (self._chat(self.messages[:index]) or "") if index else ""
        if self.text[:start].startswith(before) and (before or not index):
            return len(before)
        # Some templates end what they take for the last message in a way of their own: leave that out.
        limit = min(len(before), start)
        common = next((at for at in range(limit) if before[at] != self.text[at]), limit)
        header = next(self._markers_over(common), common)
        end: int | None = header
        while end is not None and before[end:].strip():
            end = self.tokenizer.after_marker(before, end)
        if end is None or (index and not header):
            raise _lost(index, "its header could not be told apart from the message before it")
        return header

    def _markers_over(self, position: int) -> Iterator[int]:
        """Yield where a marker begins that `position` is inside of."""
        longest = max(self.tokenizer.marker_lengths, default=0)
        for at in range(max(position - longest, 0), position):
            if at + len(self.tokenizer.marker_at(self.text, at)) > position:
                yield at


def _lost(index: int, why: str) -> RowError:
    return RowError(Status.TEMPLATE_ERROR, f"the chat template hides the answer in message {index}: {why}")


def _absent(text: str) -> str:
    mark = MARK
    while mark in text:
        mark += "x"
    return mark


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:30]} ... {text[-25:]}")
