"""The whole recipe: its sections, and what of them goes together."""

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationInfo, field_validator, model_validator

from davir_ray.config.measuring import (
    CorpusConfig,
    EngineConfig,
    ExportConfig,
    MeasureConfig,
    ModelsConfig,
    ScoreConfig,
    TokensConfig,
)
from davir_ray.config.nightly import NightlyConfig
from davir_ray.config.section import Section, no_effect
from davir_ray.config.training import ReferenceConfig, TrainConfig
from davir_ray.coreset.rules import FractionRule, SelectRule
from davir_ray.scores import SCORES
from davir_ray.scores.score import SETTINGS


class Recipe(Section):
    """Everything that decides what a run does."""

    corpus: CorpusConfig
    tokens: TokensConfig = TokensConfig()
    models: ModelsConfig
    engine: EngineConfig = EngineConfig()
    measure: MeasureConfig = MeasureConfig()
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

    @model_validator(mode="after")
    def _nothing_without_effect_elsewhere(self, info: ValidationInfo) -> "Recipe":
        """Refuse settings that are given and that a setting of another section leaves without effect."""
        given = {
            "measure": self.measure,
            "score": self.score,
            "tokens": self.tokens,
            "export": self.export,
            "nightly": self.nightly,
        }
        idle = {
            f"{section}.{name}": why
            for section, name, why in self._idle()
            if given[section].gives(name, info.context)
        }
        if idle:
            raise no_effect(idle)
        return self

    def _idle(self) -> Iterator[tuple[str, str, str]]:
        """Yield section and name of each setting that nothing reads, and why; of a score of the user's own, none."""
        if (score := SCORES.get(self.score.name)) is not None:
            idle = [name for name in SETTINGS if name not in score.settings]
            yield from (("score", name, f"score {score.name} does not read it") for name in idle)
        template, hands_on = self.tokens.template, {"trl", "trl_frozen"} & set(self.export.formats)
        if template in ("alpaca", "plain") and not hands_on:
            why = f"template {template} has no variables, and only an export of format trl hands them on"
            yield "tokens", "chat_template_kwargs", why
        if self.export.one_schema and self.corpus.source_by is None and len(self.corpus.paths) == 1:
            yield "export", "one_schema", "the corpus has one source"
        if self.nightly.max_bad_files != 0 and self.corpus.on_bad_file == "error":
            yield "nightly", "max_bad_files", "a bad file stops the run, unless corpus.on_bad_file is skip"
