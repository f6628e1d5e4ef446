"""Rules that keep the best rows of each group, or of each band of response length.

Groups and lengths become small codes; sizes are counted in one scan, the best of each are kept in a second.
N rows in a part, G codes.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.config import LengthQuotaRule, QuotaRule
from davir_ray.coreset.cuts import Mask, Rows, share_of, tokens_in

Codes = NDArray[np.int64]


def quota(rule: QuotaRule, rows: Rows) -> Iterator[Mask]:
    """Keep the best of each group: a number, or a share, rounded down but at least one."""
    known: dict[str, int] = {}

    def groups() -> Iterator[Codes]:
        return (_encode(table[rule.by], known) for table in rows(rule.by))

    sizes = _tally(groups())
    if rule.count is not None:
        yield from _best_of_each(groups, np.full_like(sizes, rule.count))
    elif rule.fraction is not None:
        yield from _best_of_each(groups, _shares(rule.fraction, sizes))


def length_quota(rule: LengthQuotaRule, rows: Rows) -> Iterator[Mask]:
    """Keep the best share of each band of response length, rounded down but at least one."""
    lengths = _tally(tokens_in(table) for table in rows("num_tokens"))
    band_of = length_bands(lengths, rule.bands)
    sizes = np.zeros(rule.bands, dtype=np.int64)
    np.add.at(sizes, band_of, lengths)
    limit = _shares(rule.fraction, sizes)
    yield from _best_of_each(lambda: (band_of[tokens_in(table)] for table in rows("num_tokens")), limit)


def length_bands(lengths: NDArray[np.int64], bands: int) -> Codes:
    """Give each length its band, from the number of rows of each length; bands hold about equally many rows.

    Rows of one length share a band: the one in which the middle of them falls. So a band can be empty.
    """
    below = np.cumsum(lengths) - lengths
    return bands * (2 * below + lengths) // (2 * max(int(lengths.sum()), 1))


def _encode(column: pa.ChunkedArray, known: dict[str, int]) -> Codes:
    encoded = column.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    codes = np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)
    indices: NDArray[np.int32] = encoded.indices.to_numpy()
    return codes[indices]


def _tally(parts: Iterator[Codes]) -> NDArray[np.int64]:
    """Count each code [G]."""
    total = np.zeros(0, dtype=np.int64)
    for codes in parts:
        counted = np.bincount(codes, minlength=len(total))
        counted[: len(total)] += total
        total = counted
    return total


def _shares(fraction: float, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array([share_of(fraction, size) for size in sizes.tolist()], dtype=np.int64)


def _best_of_each(parts: Callable[[], Iterator[Codes]], limit: NDArray[np.int64]) -> Iterator[Mask]:
    taken = np.zeros_like(limit)
    for codes in parts():
        yield taken[codes] + _place_within(codes) < limit[codes]
        taken += np.bincount(codes, minlength=len(limit))


def _place_within(codes: Codes) -> NDArray[np.int64]:
    """Tell how many rows before each row have its code [N]."""
    order = np.argsort(codes, kind="stable")
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    counts = np.bincount(codes)
    return inverse - (np.cumsum(counts) - counts)[codes]
