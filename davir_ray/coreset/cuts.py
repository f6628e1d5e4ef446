"""Rules that cut the ranking itself: a share, a number, a token budget, bounds on the score.

A rule is a function of its settings and of `rows`: `rows(column, ...)` reads those columns of the rows
that reach the rule, in rank order, one table a part, and may be called again for another scan. It yields
one mask a part: true keeps the row. N rows in a part.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from math import floor

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.config import CountRule, FractionRule, ThresholdRule, TokenBudgetRule

Rows = Callable[..., Iterator[pa.Table]]
Mask = NDArray[np.bool_]


def share_of(fraction: float, rows: int) -> int:
    """Return floor(fraction * rows), but at least one of any rows. The fraction is taken as it is written.

    In binary 0.29 * 100 is below 29, so the floor of that product would be one too few.
    """
    return min(rows, max(1, floor(exact(fraction) * rows)))


def exact(decimal: float) -> Fraction:
    """Return the number that a person wrote, not its nearest binary fraction."""
    return Fraction(repr(float(decimal)))


def fraction(rule: FractionRule, rows: Rows) -> Iterator[Mask]:
    """Keep the best share of the rows."""
    reaching = sum(len(table) for table in rows("rank"))
    yield from _first(share_of(rule.fraction, reaching), rows)


def count(rule: CountRule, rows: Rows) -> Iterator[Mask]:
    """Keep the best rows, up to a number."""
    yield from _first(rule.count, rows)


def _first(wanted: int, rows: Rows) -> Iterator[Mask]:
    before = 0
    for table in rows("rank"):
        yield before + np.arange(len(table)) < wanted
        before += len(table)


def token_budget(rule: TokenBudgetRule, rows: Rows) -> Iterator[Mask]:
    """Keep rows while their response tokens fit; the first that does not fit ends the set."""
    before = 0
    for table in rows("num_tokens"):
        used = before + np.cumsum(tokens_in(table))
        yield used <= rule.tokens  # `used` counts rows that did not fit too, so nothing after them fits
        before = int(used[-1]) if len(used) else before


def tokens_in(table: pa.Table) -> NDArray[np.int64]:
    """Return the response tokens of each row [N]."""
    return np.asarray(table["num_tokens"].fill_null(0).to_numpy(), dtype=np.int64)


def threshold(rule: ThresholdRule, rows: Rows) -> Iterator[Mask]:
    """Keep rows whose score lies within the bounds, both included."""
    low = -np.inf if rule.min_score is None else rule.min_score
    high = np.inf if rule.max_score is None else rule.max_score
    for table in rows("score"):
        score = table["score"].to_numpy()
        yield (score >= low) & (score <= high)
