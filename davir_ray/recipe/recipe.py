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
from davir_ray.config.section import Section
from davir_ray.config.training import ReferenceConfig, TrainConfig
from davir_ray.coreset.rules import FractionRule, SelectRule


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
    def _rules_fit(self) -> "Recipe":
        for index, rule in enumerate(self.select):
            try:
                rule.check_corpus(self.corpus)
            except ValueError as error:
                raise ValueError(f"select.{index}: {error}") from error
        return self
