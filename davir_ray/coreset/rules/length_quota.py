"""The rule `length_quota`: the best rows of each band of response length."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from davir_ray.coreset.rules.best import GroupCodes, first_of_each, shares, sizes
from davir_ray.coreset.rules.rule import Mask, Rows, Rule, tokens_in


class LengthQuotaRule(Rule):
    """Keep the best share of each band of response length, so that the core-set keeps the corpus's lengths."""

    cuts: ClassVar[Literal["groups"]] = "groups"

    type: Literal["length_quota"] = "length_quota"
    bands: int = Field(8, ge=2, le=256)
    """How many bands, with about equally many rows in each."""
    fraction: float = Field(gt=0, le=1)
    """Share of each band, rounded down but at least one row."""

    def keep(self, rows: Rows) -> Iterator[Mask]:
        """Keep the best share of each band."""
        lengths = sizes(tokens_in(table) for table in rows("num_tokens"))
        band_of = length_bands(lengths, self.bands)
        rows_of_band = np.zeros(self.bands, dtype=np.int64)
        np.add.at(rows_of_band, band_of, lengths)

        def bands() -> Iterator[GroupCodes]:
            return (band_of[tokens_in(table)] for table in rows("num_tokens"))

        yield from first_of_each(bands, shares(self.fraction, rows_of_band))


def length_bands(lengths: NDArray[np.int64], bands: int) -> GroupCodes:
    """Give each length its band, from the number of rows of each length; bands hold about equally many rows.

    Rows of one length share a band: the one in which the middle of them falls. So a band can be empty.
    """
    below = np.cumsum(lengths) - lengths
    return bands * (2 * below + lengths) // (2 * max(int(lengths.sum()), 1))
