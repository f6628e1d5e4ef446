"""The rule `fraction`: the best share of the rows."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from davir_ray.coreset.rules.best import first, share_of
from davir_ray.coreset.rules.rule import Mask, Rows, Rule


class FractionRule(Rule):
    """Keep the best share of the rows."""

    cuts: ClassVar[Literal["ranking"]] = "ranking"

    type: Literal["fraction"] = "fraction"
    fraction: float = Field(gt=0, le=1)
    """Share of the rows that reach this rule; the count is rounded down, and is at least one."""

    def keep(self, rows: Rows) -> Iterator[Mask]:
        """Keep the best share of the rows."""
        reaching = sum(len(table) for table in rows("rank"))
        yield from first(share_of(self.fraction, reaching), rows)
