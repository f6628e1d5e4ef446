"""The best rows, of all or of each group: how many a share is, and which rows those are.

Groups are small codes; their sizes are counted in one scan, the best of each are kept in a second. N rows in a part,
G codes.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from math import floor

import numpy as np
from numpy.typing import NDArray

from davir_ray.coreset.rules.rule import Mask, Rows

GroupCodes = NDArray[np.int64]


def share_of(fraction: float, rows: int) -> int:
    """Return floor(fraction * rows), but at least one of any rows. The fraction is taken as it is written.

    In binary 0.29 * 100 is below 29, so the floor of that product would be one too few.
    """
    return min(rows, max(1, floor(exact(fraction) * rows)))


def exact(decimal: float) -> Fraction:
    """Return the number that a person wrote, not its nearest binary fraction."""
    return Fraction(repr(float(decimal)))


def first(wanted: int, rows: Rows) -> Iterator[Mask]:
    """Keep the first rows, up to a number."""
    before = 0
    for table in rows("rank"):
        yield before + np.arange(len(table)) < wanted
        before += len(table)


def sizes(parts: Iterator[GroupCodes]) -> NDArray[np.int64]:
    """Count each code [G]."""
    total = np.zeros(0, dtype=np.int64)
    for codes in parts:
        counted = np.bincount(codes, minlength=len(total))
        counted[: len(total)] += total
        total = counted
    return total


def shares(fraction: float, of: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the share of each size [G], rounded down but at least one."""
    return np.array([share_of(fraction, size) for size in of.tolist()], dtype=np.int64)


def first_of_each(parts: Callable[[], Iterator[GroupCodes]], limit: NDArray[np.int64]) -> Iterator[Mask]:
    """Keep the first rows of each code, up to its limit [G]."""
    taken = np.zeros_like(limit)
    for codes in parts():
        yield taken[codes] + place_within(codes) < limit[codes]
        taken += np.bincount(codes, minlength=len(limit))


def place_within(codes: GroupCodes) -> NDArray[np.int64]:
    """Tell how many rows before each row have its code [N]."""
    order = np.argsort(codes, kind="stable")
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    counts = np.bincount(codes)
    return inverse - (np.cumsum(counts) - counts)[codes]
