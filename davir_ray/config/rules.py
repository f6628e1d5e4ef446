"""The selection rules of a recipe."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from davir_ray.config.section import Section


class Rule(Section):
    """Base of the selection rules. Rules run in order, each on the rows that the ones before it kept."""


class FractionRule(Rule):
    """Keep the best share of the rows."""

    type: Literal["fraction"] = "fraction"
    fraction: float = Field(gt=0, le=1)
    """Share of the rows that reach this rule; the count is rounded down, and is at least one."""


class CountRule(Rule):
    """Keep the best rows, up to a number."""

    type: Literal["count"] = "count"
    count: int = Field(ge=1)


class TokenBudgetRule(Rule):
    """Keep the best rows whose response tokens fit into a budget; the first that does not fit ends the set."""

    type: Literal["token_budget"] = "token_budget"
    tokens: int = Field(ge=1)


class ThresholdRule(Rule):
    """Keep rows whose score lies within bounds, both included."""

    type: Literal["threshold"] = "threshold"
    min_score: float | None = None
    max_score: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> "ThresholdRule":
        if self.min_score is None and self.max_score is None:
            raise ValueError("needs min_score, max_score or both")
        return self


class QuotaRule(Rule):
    """Keep the best rows of each group: a share of the group, or a number."""

    type: Literal["quota"] = "quota"
    by: Literal["group", "source"] = "group"
    fraction: float | None = Field(None, gt=0, le=1)
    count: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_size(self) -> "QuotaRule":
        if (self.fraction is None) == (self.count is None):
            raise ValueError("needs either fraction or count")
        return self


class LengthQuotaRule(Rule):
    """Keep the best share of each band of response length, so that the core-set keeps the corpus's lengths."""

    type: Literal["length_quota"] = "length_quota"
    bands: int = Field(8, ge=2, le=256)
    """How many bands, with about equally many rows in each."""
    fraction: float = Field(gt=0, le=1)


class KeepSourcesRule(Rule):
    """Keep every row of the named sources, whatever other rules say (wherever this stands in the list)."""

    type: Literal["keep_sources"] = "keep_sources"
    sources: tuple[str, ...] = Field(min_length=1)


class DifficultyRule(Rule):
    """Keep rows whose mean base loss a token lies between two quantiles of the rows that reach this rule."""

    type: Literal["difficulty"] = "difficulty"
    min_quantile: float = Field(0.0, ge=0, le=1)
    max_quantile: float = Field(1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> "DifficultyRule":
        if self.min_quantile >= self.max_quantile:
            raise ValueError("min_quantile must be below max_quantile")
        return self


class NearDuplicatesRule(Rule):
    """Drop a row whose token shingles are nearly those of a better row (MinHash, estimated Jaccard)."""

    type: Literal["near_duplicates"] = "near_duplicates"
    threshold: float = Field(0.8, gt=0, lt=1)
    num_perm: int = Field(128, ge=16, le=1024)
    shingle: int = Field(5, ge=1)
    """Tokens a shingle."""


SelectRule = Annotated[
    FractionRule
    | CountRule
    | TokenBudgetRule
    | ThresholdRule
    | QuotaRule
    | LengthQuotaRule
    | KeepSourcesRule
    | DifficultyRule
    | NearDuplicatesRule,
    Field(discriminator="type"),
]
