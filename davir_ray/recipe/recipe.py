"""The whole recipe: its sections, and what of them goes together."""

from typing import Any

from pydantic import field_validator, model_validator

from davir_ray.config.measuring import (
    CorpusConfig,
    EngineConfig,
    ExportConfig,
    ModelsConfig,
    ScoreConfig,
    TokensConfig,
)
from davir_ray.config.nightly import NightlyConfig
from davir_ray.config.rules import FractionRule, KeepSourcesRule, NearDuplicatesRule, QuotaRule, SelectRule
from davir_ray.config.section import Section
from davir_ray.config.training import ReferenceConfig, TrainConfig


class Recipe(Section):
    """Everything that decides what a run does."""

    corpus: CorpusConfig
    tokens: TokensConfig = TokensConfig()
    models: ModelsConfig
    engine: EngineConfig = EngineConfig()
    score: ScoreConfig = ScoreConfig()
    select: tuple[SelectRule, ...] = (FractionRule(fraction=0.06),)
    export: ExportConfig = ExportConfig()
    reference: ReferenceConfig | None = None
    """Makes `models.reference`, where that names none."""
    train: TrainConfig | None = None
    """Training on the core-set."""
    nightly: NightlyConfig = NightlyConfig()
    """Limits of `davir nightly`."""
    store: str = "davir/store"
    """Folder or fsspec URI of the measurement store, shared by all runs."""
    output: str = "davir/runs"
    """Folder or fsspec URI under which each run has a folder."""

    @field_validator("select", mode="before")
    @classmethod
    def _one_rule(cls, value: Any) -> Any:
        """Accept a rule for a list of one."""
        return [value] if isinstance(value, dict) else value

    @field_validator("select")
    @classmethod
    def _one_signature(cls, rules: tuple[SelectRule, ...]) -> tuple[SelectRule, ...]:
        kinds = {(rule.num_perm, rule.shingle) for rule in rules if isinstance(rule, NearDuplicatesRule)}
        if len(kinds) > 1:
            raise ValueError("near_duplicates rules must have one num_perm and one shingle size")
        return rules

    @model_validator(mode="after")
    def _one_reference(self) -> "Recipe":
        if self.reference is not None and self.models.reference is not None:
            raise ValueError("models.reference names a model and `reference` makes one; keep one of them")
        return self

    @model_validator(mode="after")
    def _rendered_as_trl_does(self) -> "Recipe":
        if "trl_frozen" in self.export.formats and self.tokens.template != "chat":
            raise ValueError(
                "export.formats: trl_frozen is for tokens.template: chat, the model's own, which TRL renders with; "
                f"not for {self.tokens.template}"
            )
        return self

    @model_validator(mode="after")
    def _known_groups(self) -> "Recipe":
        if self.corpus.group_by is None:
            for index, rule in enumerate(self.select):
                if isinstance(rule, QuotaRule) and rule.by == "group":
                    raise ValueError(
                        f"select.{index}: a quota `by: group` (the default) counts by the column that corpus.group_by "
                        "names, and that is not set; set it, or say `by: source`"
                    )
        return self

    @model_validator(mode="after")
    def _known_sources(self) -> "Recipe":
        if self.corpus.source_by is None:
            for rule in self.select:
                if isinstance(rule, KeepSourcesRule) and (
                    unknown := set(rule.sources) - set(self.corpus.paths)
                ):
                    names = ", ".join(self.corpus.paths)
                    raise ValueError(
                        f"select: keep_sources names {', '.join(sorted(unknown))}; corpus.paths has {names}"
                    )
        return self
