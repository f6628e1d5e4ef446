"""Which tokens of many sequences are the same prefix, and so need to be computed only once.

Sequences are sorted by content, so that equal prefixes stand together; `shared[i]` is then the length of the
prefix that sorted sequences i and i + 1 have in common. Two uses are made of it:

    header   a long prefix of at least an eighth of the call (a template's): its keys and values are kept
    tree     sequences that share more (a prompt with its chosen and rejected response): one pass over the
             distinct tokens, each segment attending to its ancestors
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]

MIN_SHARED = 16
"""Tokens. A segment costs a little at every layer, about as much as computing this many tokens again."""
MIN_HEADER_USERS = 8


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens [start, end) of every sequence in `members`, computed once.

    parent: the position in the tree's list of the segment that ends at `start`; -1 for the tree's header.
    """

    members: tuple[int, ...]
    start: int
    end: int
    parent: int


@dataclass(frozen=True, slots=True)
class Tree:
    """Segments, parents first, over a header: the tokens that come before the first segment."""

    header: bytes
    segments: tuple[Segment, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens to compute."""
        return sum(segment.end - segment.start for segment in self.segments)


def plan_trees(sequences: Sequence[Ids], unscored: Sequence[int], max_tokens: int) -> list[Tree]:
    """Cover all sequences by trees of about `max_tokens` tokens at the most, or of one longer sequence.

    unscored: how many leading positions of each sequence predict nothing that is asked for. A header, whose
    hidden states are not kept, ends within them.
    """
    order = sorted(range(len(sequences)), key=lambda i: sequences[i].tobytes())
    ids = [sequences[i] for i in order]
    shared = np.array([_common(a, b) for a, b in pairwise(ids)], dtype=np.int64)
    headers = _header_lengths(shared, np.array([unscored[i] for i in order]))
    trees = []
    for first, last in _cut(ids, shared, headers, max_tokens):
        header = ids[first][: headers[first]].tobytes()
        segments = _grow(order[first:last], ids[first:last], shared[first : last - 1], int(headers[first]))
        trees.append(Tree(header, segments))
    return trees


def _common(a: Ids, b: Ids) -> int:
    size = min(len(a), len(b))
    differs = a[:size] != b[:size]
    return int(differs.argmax()) if differs.any() else size


def _header_lengths(shared: NDArray[np.int64], unscored: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find for each sorted sequence the longest prefix that enough others share, or 0."""
    count = len(unscored)
    users = max(MIN_HEADER_USERS, count // 8)
    lengths = np.zeros(count, dtype=np.int64)
    if count < users:
        return lengths
    usable = np.minimum(np.minimum(shared, unscored[:-1]), unscored[1:])
    windows = _rolling(np.minimum, usable, users - 1)
    edge = np.zeros(users - 1, dtype=np.int64)
    lengths = _rolling(np.maximum, np.concatenate([edge, windows, edge]), users)
    return np.where(lengths >= MIN_SHARED, lengths, 0)


def _rolling(reduce: np.ufunc, values: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Reduce every `width` neighbours, in about log2(width) passes."""
    done = 1
    while done < width:
        step = min(done, width - done)
        values = reduce(values[:-step], values[step:])
        done += step
    return values


def _cut(
    ids: list[Ids], shared: NDArray[np.int64], headers: NDArray[np.int64], max_tokens: int
) -> list[tuple[int, int]]:
    """Cut the sorted sequences into runs that share more than their header and hold few enough tokens."""
    cuts, first, tokens = [], 0, 0
    for i, sequence in enumerate(ids):
        joins = i > 0 and headers[i] == headers[i - 1] and shared[i - 1] >= headers[i] + MIN_SHARED
        more = len(sequence) - int(shared[i - 1] if joins else headers[i])
        if i > 0 and (not joins or tokens + more > max_tokens):
            cuts.append((first, i))
            first, tokens, more = i, 0, len(sequence) - int(headers[i])
        tokens += more
    cuts.append((first, len(ids)))
    return cuts


def _grow(members: list[int], ids: list[Ids], shared: NDArray[np.int64], start: int) -> tuple[Segment, ...]:
    """Build the tree of one run, whose header ends at `start`."""
    tree: list[Segment] = []
    work = [(0, len(ids), start, -1)]
    while work:
        low, high, start, parent = work.pop()
        end = int(shared[low : high - 1].min()) if high - low > 1 else len(ids[low])
        if end - start >= MIN_SHARED or (high - low == 1 and end > start):
            tree.append(Segment(tuple(members[low:high]), start, end, parent))
            start, parent = end, len(tree) - 1
        if high - low > 1:
            weak = low + 1 + np.flatnonzero(shared[low : high - 1] < start + MIN_SHARED)
            bounds = [low, *weak.tolist(), high]
            work.extend((a, b, start, parent) for a, b in reversed(list(pairwise(bounds))))
    return tuple(tree)
