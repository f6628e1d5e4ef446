"""The rule `mix`: some of the best rows, and some drawn at random from the rest."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from davir_ray.coreset.rules.best import GroupCodes, exact, place_within, share_of, sizes
from davir_ray.coreset.rules.length_quota import length_bands
from davir_ray.coreset.rules.rule import Mask, Rows, Rule, tokens_in
from davir_ray.ids import keys_of, uniform_draw


class MixRule(Rule):
    """Keep the best rows, and beside them rows drawn at random from those that are not among the best.

    What Train on Validation calls Score+Random (arXiv 2510.00386): its score is noisy, so half of the rows are left to
    chance; it ranks within bands of equal length.
    """

    cuts: ClassVar[Literal["groups"]] = "groups"

    type: Literal["mix"] = "mix"
    fraction: float | None = Field(None, gt=0, le=1)
    """Share of the rows that are kept, in each band; rounded down, but at least one row."""
    count: int | None = Field(None, ge=1)
    """Number of rows that are kept; bands have shares of it by their sizes."""
    random: float = Field(0.5, ge=0, le=1)
    """Share of the kept rows that are drawn; rounded down."""
    bands: int = Field(1, ge=1, le=256)
    """Rank within so many bands of response length, with about equally many rows in each."""
    seed: int = 0
    """Of the draw, which goes by the content of rows."""

    @model_validator(mode="after")
    def _one_size(self) -> "MixRule":
        if (self.fraction is None) == (self.count is None):
            raise ValueError("needs either fraction or count")
        return self

    def keep(self, rows: Rows) -> Iterator[Mask]:
        """Keep the best rows of each band, and those of the rest with the smallest draws."""
        lengths = sizes(tokens_in(table) for table in rows("num_tokens"))
        band_of = length_bands(lengths, self.bands)
        of_band = np.bincount(band_of, weights=lengths, minlength=self.bands).astype(np.int64)
        wanted = self._wanted(of_band)
        drawn = np.array([int(exact(self.random) * one) for one in wanted.tolist()], dtype=np.int64)
        best = wanted - drawn
        limits = self._limits(rows, band_of, best, drawn)
        for band, place, draw in self._rows(rows, band_of):
            yield (place < best[band]) | (draw <= limits[band])

    def _wanted(self, of_band: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many rows of each band are kept [bands]. of_band: how many there are."""
        if self.fraction is not None:
            return np.array(
                [share_of(self.fraction, one) if one else 0 for one in of_band.tolist()], dtype=np.int64
            )
        assert self.count is not None
        ends = np.cumsum(of_band) * min(self.count, int(of_band.sum())) // max(int(of_band.sum()), 1)
        return np.diff(ends, prepend=0)

    def _rows(
        self, rows: Rows, band_of: GroupCodes
    ) -> Iterator[tuple[GroupCodes, NDArray[np.int64], NDArray[np.float64]]]:
        """Yield for the rows of each part their band, their place in it by rank, from 0, and their draw."""
        before = np.zeros(self.bands, dtype=np.int64)
        for table in rows("num_tokens", "example_id"):
            band = band_of[tokens_in(table)]
            yield (
                band,
                before[band] + place_within(band),
                uniform_draw(keys_of(table["example_id"]), self.seed),
            )
            before += np.bincount(band, minlength=self.bands)

    def _limits(
        self, rows: Rows, band_of: GroupCodes, best: NDArray[np.int64], drawn: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the largest draw of each band that is kept [bands]; below all draws where none is."""
        smallest = [np.zeros(0) for _ in range(self.bands)]
        for band, place, draw in self._rows(rows, band_of):
            for index in np.unique(band).tolist():
                rest = draw[(band == index) & (place >= best[index])]
                smallest[index] = np.sort(np.concatenate([smallest[index], rest]))[: drawn[index]]
        return np.array([one[-1] if len(one) else -1.0 for one in smallest])
