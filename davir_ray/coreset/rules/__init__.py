'''The selection rules: one file a rule, with its settings, its needs and the rows that it keeps.

    rule.py      what a rule is; best.py: shares, and the best rows of all or of each group
    fraction.py, ...  one file a rule; SelectRule below lists them
    choose.py    the loop over a recipe's rules, streamed over ranked rows a part at a time

A rule of your own is one file and one line. In `coreset/rules/short_answers.py`:

    class ShortAnswersRule(Rule):
        """Keep rows whose response is short."""

        type: Literal["short_answers"] = "short_answers"
        max_tokens: int = Field(ge=1)

        def keep(self, rows: Rows) -> Iterator[Mask]:
            """Keep rows of at most `max_tokens` response tokens."""
            return (tokens_in(table) <= self.max_tokens for table in rows("num_tokens"))

and its class in SelectRule. The recipe's `select: [{type: short_answers, max_tokens: 200}]` then uses it, and the
record and the closing table count what it left out as `0:short_answers`. What it needs measured, a column made of each
row's token ids, and what the closing table shows of it are attributes of `Rule`.
'''

from typing import Annotated

from pydantic import Field

from davir_ray.coreset.rules.count import CountRule
from davir_ray.coreset.rules.difficulty import DifficultyRule
from davir_ray.coreset.rules.fraction import FractionRule
from davir_ray.coreset.rules.keep_sources import KeepSourcesRule
from davir_ray.coreset.rules.length_quota import LengthQuotaRule
from davir_ray.coreset.rules.mix import MixRule
from davir_ray.coreset.rules.near_duplicates import NearDuplicatesRule
from davir_ray.coreset.rules.quota import QuotaRule
from davir_ray.coreset.rules.round_robin import RoundRobinRule
from davir_ray.coreset.rules.threshold import ThresholdRule
from davir_ray.coreset.rules.token_budget import TokenBudgetRule

SelectRule = Annotated[
    FractionRule
    | CountRule
    | TokenBudgetRule
    | ThresholdRule
    | QuotaRule
    | LengthQuotaRule
    | KeepSourcesRule
    | DifficultyRule
    | NearDuplicatesRule
    | MixRule
    | RoundRobinRule,
    Field(discriminator="type"),
]

__all__ = [
    "CountRule",
    "DifficultyRule",
    "FractionRule",
    "KeepSourcesRule",
    "LengthQuotaRule",
    "MixRule",
    "NearDuplicatesRule",
    "QuotaRule",
    "RoundRobinRule",
    "SelectRule",
    "ThresholdRule",
    "TokenBudgetRule",
]
