"""The recipe: one frozen model a stage, in pipeline order. Unknown keys are refused."""

from davir_ray.config.measuring import (
    CorpusConfig,
    EngineConfig,
    ExportConfig,
    MeasureConfig,
    ModelConfig,
    ModelsConfig,
    ScoreConfig,
    SourceConfig,
    TagsConfig,
    TokensConfig,
)
from davir_ray.config.nightly import NightlyConfig
from davir_ray.config.recipe import Recipe, load_recipe, parse_recipe
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
    "MeasureConfig",
    "ModelConfig",
    "ModelsConfig",
    "NearDuplicatesRule",
    "NightlyConfig",
    "QuotaRule",
    "Recipe",
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
    "load_recipe",
    "parse_recipe",
]
