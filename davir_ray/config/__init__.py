"""The sections of the recipe: one frozen model a stage, in pipeline order. Unknown keys are refused."""

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
from davir_ray.config.section import Section
from davir_ray.config.target import ReferenceConfig, TargetConfig, WarmupConfig
from davir_ray.config.training import LoraConfig, TrainConfig

__all__ = [
    "CorpusConfig",
    "EngineConfig",
    "ExportConfig",
    "LoraConfig",
    "MeasureConfig",
    "ModelConfig",
    "ModelsConfig",
    "NightlyConfig",
    "ReferenceConfig",
    "ScoreConfig",
    "Section",
    "SourceConfig",
    "TagsConfig",
    "TargetConfig",
    "TokensConfig",
    "TrainConfig",
    "WarmupConfig",
]
