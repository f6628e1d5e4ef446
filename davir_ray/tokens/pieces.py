"""A sequence as pieces of text: runs of context, and counted tokens as few at a time as have text of their own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from davir_ray.tokens.rendering import Ids, Marks

Decode = Callable[[Sequence[int]], str]

TOKENS_OF_A_LETTER = 4
"""How many tokens a letter can be spread over: UTF-8 has no more bytes for one."""
LACKING = "\ufffd"
"""What a piece of a letter is decoded to."""


@dataclass(frozen=True)
class Piece:
    """Neighbouring tokens, `first` to `stop`, and their text: a run of context, or a letter or more that counts."""

    first: int
    stop: int
    counts: bool
    text: str


def pieces(ids: Ids, counts: Marks, decode: Decode) -> Iterator[Piece]:
    """Cut a sequence into runs of context, and counted tokens as few at a time as have text of their own."""
    start, every = 0, ids.tolist()
    for counted, run in groupby(counts.tolist()):
        end = start + len(list(run))
        while start < end:
            stop = _own_text_ends(every, start, end, decode) if counted else end
            yield Piece(start, stop, counted, _text(every, start, stop, decode))
            start = stop


def _own_text_ends(ids: list[int], start: int, end: int, decode: Decode) -> int:
    """Return where the shortest run from `start` ends that is whole letters; without one, a single token is taken."""
    for stop in range(start + 1, min(start + TOKENS_OF_A_LETTER, end) + 1):
        if LACKING not in _text(ids, start, stop, decode):
            return stop
    return start + 1


def _text(ids: list[int], start: int, stop: int, decode: Decode) -> str:
    """Decode tokens behind the one before them: some tokenizers drop a space at the beginning of a text."""
    before = decode(ids[max(start - 1, 0) : start])
    with_it = decode(ids[max(start - 1, 0) : stop])
    goes_on = with_it.startswith(before) and not before.endswith(LACKING)
    return with_it.removeprefix(before) if goes_on else decode(ids[start:stop])
