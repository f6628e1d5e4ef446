"""Send rows to the partition they belong to: the one shuffle of the project, for narrow rows.

`scatter` runs a task that cuts its input into one piece a partition; `gather` runs a task a partition over the
pieces meant for it; `regroup` does both in one task, for the next exchange. Pieces live in Ray's object store,
which spills them to disk, so no process holds more than one input or one partition. Ray retries a task whose
worker or node died.
"""

from collections.abc import Callable, Sequence
from typing import Any

import ray

ROWS_PER_PARTITION = 500_000
"""Narrow rows that one task handles at once."""

Pieces = list[Any]
"""One object reference a partition."""


def partitions_for(rows: int) -> int:
    """Choose how many partitions so many rows need."""
    return max(1, -(-rows // ROWS_PER_PARTITION))


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


def _single(function: Callable[..., Sequence[Any]], *arguments: Any) -> Any:
    """Unpack a result of one piece, which Ray would otherwise hand on as a list."""
    (piece,) = function(*arguments)
    return piece
