"""The rule `token_budget`: the best rows whose response tokens fit into a budget."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from davir_ray.coreset.rules.rule import Mask, Rows, Rule, tokens_in


class TokenBudgetRule(Rule):
    """Keep the best rows whose response tokens fit into a budget; the first that does not fit ends the set."""

    cuts: ClassVar[Literal["ranking"]] = "ranking"

    type: Literal["token_budget"] = "token_budget"
    tokens: int = Field(ge=1)
    """Response tokens of all rows that are kept, at most."""

    def keep(self, rows: Rows) -> Iterator[Mask]:
        """Keep rows while their response tokens fit."""
        before = 0
        for table in rows("num_tokens"):
            used = before + np.cumsum(tokens_in(table))
            yield used <= self.tokens  # `used` counts rows that did not fit too, so nothing after them fits
            before = int(used[-1]) if len(used) else before
