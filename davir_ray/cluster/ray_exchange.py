"""Send rows to the partition they belong to: the one shuffle of the project, for narrow rows.

`scatter` runs a task that cuts its input into one piece a partition; `gather` runs a task a partition over the
pieces meant for it; `regroup` does both in one task, for the next exchange. Pieces live in Ray's object store,
which spills them to disk, so no process holds more than one block of inputs or one partition. Ray retries a task whose
worker or node died.

Results below 100 KB Ray keeps in the process that asked for them, which is the driver. So inputs that are small are
taken in blocks, and both blocks and partitions are as large as it takes for their pieces to stay out of the driver.
"""

from collections.abc import Callable, Sequence
from math import isqrt
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

ROWS_PER_TASK = 1_000_000
"""Narrow rows that one task handles at once, of a corpus of up to 125 million."""

ROWS_PER_PIECE = 8_000
"""Narrow rows of a piece of a larger corpus: at 17 bytes and more they are above 100 KB."""

BLOCKS = 64
"""Blocks of even inputs that a smaller corpus is cut into, to keep a cluster busy."""

INPUTS_PER_BLOCK = 100
"""What is below 100 KB also travels within the call of the task that takes it: 10 MB for one result of each input."""

Pieces = list[Any]
"""One object reference a partition."""


def partitions_for(rows: int) -> int:
    """Choose how many partitions so many rows need."""
    return max(1, -(-rows // rows_per_task(rows)))


def rows_per_task(rows: int) -> int:
    """Choose how many of so many rows a task handles: of n blocks and n partitions, n * n pieces are large enough."""
    return max(ROWS_PER_TASK, isqrt(ROWS_PER_PIECE * rows))


def blocks_of(rows: Sequence[int], most: int | None = None) -> list[range]:
    """Cut inputs of so many rows into blocks of neighbours that have at most so many together, or are one input.

    most: what makes BLOCKS of them, but not more than `rows_per_task`, if it is not given.
    """
    most = most or min(rows_per_task(sum(rows)), sum(rows) // BLOCKS)
    blocks, start, room = [], 0, most
    for index, count in enumerate(rows):
        if (count > room and index > start) or index - start == INPUTS_PER_BLOCK:
            blocks.append(range(start, index))
            start, room = index, most
        room -= count
    return [*blocks, range(start, len(rows))] if rows else []


def rows_per_block(pieces: int) -> int:
    """Choose how many rows a block takes, if so many pieces of it come together, each large enough."""
    return ROWS_PER_PIECE * pieces


def block_of(inputs: NDArray[np.integer[Any]], blocks: Sequence[range]) -> NDArray[np.int64]:
    """Tell the block of each input [N]."""
    return np.searchsorted([block.stop for block in blocks], inputs, side="right").astype(np.int64)


def scatter(function: Callable[..., Sequence[Any]], count: int, *arguments: Any) -> Pieces:
    """Run a function that returns `count` pieces as a task."""
    if count == 1:
        return [ray.remote(_single).remote(function, *arguments)]
    refs: Pieces = ray.remote(function).options(num_returns=count).remote(*arguments)
    return refs


def gather(pieces: Sequence[Pieces], function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run `function(*arguments, *pieces)` for each partition as a task; return the references in order."""
    task = ray.remote(function)
    return [task.remote(*arguments, *partition) for partition in zip(*pieces, strict=True)]


def regroup(
    pieces: Sequence[Pieces], function: Callable[..., Sequence[Any]], count: int, *arguments: Any
) -> list[Pieces]:
    """Gather each partition, and scatter what comes of it into `count` new ones."""
    return [scatter(function, count, *arguments, *partition) for partition in zip(*pieces, strict=True)]


def cut(
    pieces: Sequence[Pieces], function: Callable[..., Sequence[Any]], blocks: Sequence[range]
) -> list[Any]:
    """Gather each block of inputs, and cut what comes of it into one piece an input; return these in order."""
    gathered = zip(blocks, zip(*pieces, strict=True), strict=True)
    return [one for block, partition in gathered for one in scatter(function, len(block), block, *partition)]


def _single(function: Callable[..., Sequence[Any]], *arguments: Any) -> Any:
    """Unpack a result of one piece, which Ray would otherwise hand on as a list."""
    (piece,) = function(*arguments)
    return piece
