"""The rule `quota`: the best rows of each group, or of each source."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from davir_ray.config import CorpusConfig
from davir_ray.coreset.rules.best import GroupCodes, first_of_each, shares, sizes
from davir_ray.coreset.rules.rule import Mask, Rows, Rule


class QuotaRule(Rule):
    """Keep the best rows of each group: a share of the group, or a number."""

    cuts: ClassVar[Literal["groups"]] = "groups"

    type: Literal["quota"] = "quota"
    by: Literal["group", "source"] = "group"
    """`group`: rows of one value of the column that `corpus.group_by` names; `source`: rows of one source."""
    fraction: float | None = Field(None, gt=0, le=1)
    """Share of each group, rounded down but at least one row."""
    count: int | None = Field(None, ge=1)
    """Rows of each group; all of a smaller one."""

    @model_validator(mode="after")
    def _one_size(self) -> "QuotaRule":
        if (self.fraction is None) == (self.count is None):
            raise ValueError("needs either fraction or count")
        return self

    @property
    def counted_by(self) -> Literal["group", "source"]:
        """The column that names the groups."""
        return self.by

    def check_corpus(self, corpus: CorpusConfig) -> None:
        """Raise `ValueError` where the corpus has no groups."""
        if self.by == "group" and corpus.group_by is None:
            raise ValueError(
                "a quota `by: group` (the default) counts by the column that corpus.group_by names, and that is not "
                "set; set it, or say `by: source`"
            )

    def keep(self, rows: Rows) -> Iterator[Mask]:
        """Keep the best of each group."""
        known: dict[str, int] = {}

        def groups() -> Iterator[GroupCodes]:
            return (_encode(table[self.by], known) for table in rows(self.by))

        yield from first_of_each(groups, self._limit(sizes(groups())))

    def _limit(self, of: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many rows of each group are kept [G]. of: their sizes."""
        return np.full_like(of, self.count) if self.fraction is None else shares(self.fraction, of)


def _encode(column: pa.ChunkedArray, known: dict[str, int]) -> GroupCodes:
    """Return the code of each value [N]; new values are added to those that are known."""
    encoded = column.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    codes = np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)
    indices: NDArray[np.int32] = encoded.indices.to_numpy()
    return codes[indices]
