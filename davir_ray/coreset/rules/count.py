"""The rule `count`: the best rows, up to a number."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from davir_ray.coreset.rules.best import first
from davir_ray.coreset.rules.rule import Mask, Rows, Rule


class CountRule(Rule):
    """Keep the best rows, up to a number."""

    cuts: ClassVar[Literal["ranking"]] = "ranking"

    type: Literal["count"] = "count"
    count: int = Field(ge=1)
    """How many rows; all that reach this rule, where there are fewer."""

    def keep(self, rows: Rows) -> Iterator[Mask]:
        """Keep the best rows, up to the number."""
        yield from first(self.count, rows)
