"""The sections of the recipe: one frozen model a stage, in pipeline order. Unknown keys are refused."""

from davir_ray.config.measuring import (
    CorpusConfig,
    EngineConfig,
    ExportConfig,
    ModelConfig,
    ModelsConfig,
    ScoreConfig,
    SourceConfig,
    TagsConfig,
    TokensConfig,
)
from davir_ray.config.nightly import NightlyConfig
from davir_ray.config.rules import (
    CountRule,
    DifficultyRule,
    FractionRule,
    KeepSourcesRule,
    LengthQuotaRule,
    NearDuplicatesRule,
    QuotaRule,
    Rule,
    SelectRule,
    ThresholdRule,
    TokenBudgetRule,
)
from davir_ray.config.section import Section
from davir_ray.config.training import LoraConfig, ReferenceConfig, TrainConfig

__all__ = [
    "CorpusConfig",
    "CountRule",
    "DifficultyRule",
    "EngineConfig",
    "ExportConfig",
    "FractionRule",
    "KeepSourcesRule",
    "LengthQuotaRule",
    "LoraConfig",
    "ModelConfig",
    "ModelsConfig",
    "NearDuplicatesRule",
    "NightlyConfig",
    "QuotaRule",
    "ReferenceConfig",
    "Rule",
    "ScoreConfig",
    "Section",
    "SelectRule",
    "SourceConfig",
    "TagsConfig",
    "ThresholdRule",
    "TokenBudgetRule",
    "TokensConfig",
    "TrainConfig",
]
