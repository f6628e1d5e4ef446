"""Trees of token segments, laid out as batches without padding.

Shapes: N tokens in a batch, Q asked-for values.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.hf.prefixes import Ids, Segment, Tree, plan_trees


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring segments of one length that see the same kind of past, for one call of attention.

    They hold tokens [first, first + count * length) of the batch. Each sees the header, then the batch's
    tokens in `past` (only ever set where count is 1), then itself.
    """

    first: int
    count: int
    length: int
    past: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Segments one after another, all over one header.

    ids, positions: int64 [N]. rows, targets: int64 [Q], sorted by row: the log-probability of token
    `targets[i]` after batch token `rows[i]` is asked for. owners: int64 [Q, 2], (sequence, index
    among its scored tokens).
    """

    header: bytes
    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    blocks: tuple[Block, ...]
    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    owners: NDArray[np.int64]


def plan_batches(sequences: Sequence[TokenSequence], batch_tokens: int) -> Iterator[Batch]:
    """Lay out all sequences, longest first, in batches of about `batch_tokens` tokens.

    Longest first, so that memory runs out at once or not at all. What follows a sequence's last scored
    token, and that token itself, predicts nothing and is left out.
    """
    scored = [np.flatnonzero(sequence.scored) for sequence in sequences]
    ids = [sequence.ids[: where[-1]] for sequence, where in zip(sequences, scored, strict=True)]
    trees = plan_trees(ids, [int(where[0]) - 1 for where in scored], batch_tokens)
    by_header: dict[bytes, list[Tree]] = defaultdict(list)
    for tree in trees:
        by_header[tree.header].append(tree)
    for group in by_header.values():
        group.sort(key=lambda tree: max(segment.end for segment in tree.segments), reverse=True)
        for batch in _fill(group, batch_tokens):
            yield _lay_out(batch, ids, sequences, scored)


def plan_whole(sequences: Sequence[TokenSequence], batch_tokens: int) -> Iterator[tuple[list[int], Batch]]:
    """Lay out all tokens of all sequences, those that predict nothing too, each on its own; longest first.

    Yields the sequences of a batch, in the order in which they lie there, and the batch.
    """
    ids = [sequence.ids for sequence in sequences]
    scored = [np.flatnonzero(sequence.scored) for sequence in sequences]
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]), reverse=True)
    trees = [Tree(b"", (Segment((index,), 0, len(ids[index]), -1),)) for index in order]
    for batch in _fill(trees, batch_tokens):
        members = [tree.segments[0].members[0] for tree in batch]
        yield members, _lay_out(batch, ids, sequences, scored)


def equal_lengths(sequences: Sequence[TokenSequence], batch_tokens: int) -> Iterator[list[int]]:
    """Group sequences of one length, longest first: batches that need neither padding nor a mask."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, sequence in enumerate(sequences):
        by_length[len(sequence.ids)].append(index)
    for length in sorted(by_length, reverse=True):
        size = max(1, batch_tokens // length)
        for first in range(0, len(by_length[length]), size):
            yield by_length[length][first : first + size]


def _fill(trees: list[Tree], batch_tokens: int) -> Iterator[list[Tree]]:
    batch: list[Tree] = []
    tokens = 0
    for tree in trees:
        if batch and tokens + tree.num_tokens > batch_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(tree)
        tokens += tree.num_tokens
    yield batch


def _lay_out(
    trees: list[Tree], ids: list[Ids], sequences: Sequence[TokenSequence], scored: list[NDArray[np.int64]]
) -> Batch:
    placed = list(_place(trees))
    asked = np.concatenate([_asked(segment, first, sequences, scored) for segment, first, _ in placed])
    asked = asked[np.argsort(asked[:, 0], kind="stable")]
    return Batch(
        header=trees[0].header,
        ids=np.concatenate([ids[s.members[0]][s.start : s.end] for s, _, _ in placed]).astype(np.int64),
        positions=np.concatenate([np.arange(s.start, s.end) for s, _, _ in placed]),
        blocks=_blocks(placed),
        rows=asked[:, 0],
        targets=asked[:, 1],
        owners=asked[:, 2:],
    )


Placed = tuple[Segment, int, tuple[tuple[int, int], ...]]


def _place(trees: list[Tree]) -> Iterator[Placed]:
    """Yield each segment with its first token in the batch, and the spans of its ancestors."""
    first = 0
    for tree in trees:
        spans: list[tuple[tuple[int, int], ...]] = []
        for segment in tree.segments:
            past = spans[segment.parent] if segment.parent >= 0 else ()
            yield segment, first, past
            end = first + segment.end - segment.start
            spans.append((*past, (first, end)))
            first = end


def _asked(
    segment: Segment, first: int, sequences: Sequence[TokenSequence], scored: list[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """List (row, target, sequence, index) of the scored tokens that the segment's tokens predict."""
    parts = []
    for member in segment.members:
        low, high = np.searchsorted(scored[member], [segment.start + 1, segment.end + 1])
        where = scored[member][low:high]
        rows = first + where - 1 - segment.start
        owner = np.full(len(where), member)
        parts.append(np.stack([rows, sequences[member].ids[where], owner, np.arange(low, high)], axis=1))
    asked: NDArray[np.int64] = np.concatenate(parts).astype(np.int64)
    return asked


def _blocks(placed: list[Placed]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for segment, first, past in placed:
        length = segment.end - segment.start
        last = blocks[-1] if blocks else None
        if last and last.length == length and not last.past and not past:
            blocks[-1] = Block(last.first, last.count + 1, length, ())
        else:
            blocks.append(Block(first, 1, length, past))
    return tuple(blocks)
