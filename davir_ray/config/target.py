"""What the model should become good at, and the trainings that tell which rows bring it there."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from davir_ray.config.measuring import CorpusConfig
from davir_ray.config.section import ReadIf, Section, no_effect
from davir_ray.config.training import LoraConfig, TrainConfig


class TargetConfig(CorpusConfig):
    """A few rows of what the model should become good at. Each source under `paths` is a subtask.

    Preference pairs for score `rose`; for the others rows of any format, of pairs the chosen side.
    """

    @model_validator(mode="after")
    def _every_row_counts(self) -> "TargetConfig":
        """Refuse what is for a corpus that is scored, and what would leave rows out."""
        names = ("id", "source_by", "group_by")
        idle = {name: "it is for the scored table, and these rows are not scored" for name in names}
        given = {name: why for name, why in idle.items() if getattr(self, name) is not None}
        if self.on_bad_file != "error":
            given["on_bad_file"] = "of a target, no file is left out"
        if given:
            raise no_effect(given)
        return self


PUBLISHED_WARMUP: dict[str, Any] = {
    "num_train_epochs": 4.0,
    "learning_rate": 2e-5,
    "lr_scheduler_type": "linear",
    "lora": {
        "r": 128,
        "lora_alpha": 512,
        "lora_dropout": 0.1,
        "target_modules": ("q_proj", "k_proj", "v_proj", "o_proj"),
    },
}
"""What LESS and ROSE train with (arXiv 2402.04333, 2412.00631, and their code); what is given takes its place."""


class WarmupConfig(Section):
    """The warm-up of LESS and ROSE: a LoRA adapter over the base, trained for a few epochs on a part of the corpus.

    Each epoch leaves a checkpoint with the optimiser's moments. It is made once for a recipe's name, its settings and
    the base, and used again when the corpus has grown.
    """

    fraction: float = Field(0.05, gt=0, le=1)
    """Share of the rows, by a hash of their content."""
    train: TrainConfig = TrainConfig(
        **{name: value for name, value in PUBLISHED_WARMUP.items() if name != "lora"},
        lora=LoraConfig(**PUBLISHED_WARMUP["lora"]),
    )
    """The training; objective `sft`, with `lora`. What is not given is as LESS publishes it: 4 epochs, learning rate
    2e-5, linear, rank 128 on the attention's projections; but for its batch of 128."""

    @field_validator("train", mode="before")
    @classmethod
    def _as_published(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        lora = value.get("lora", {})
        merged = PUBLISHED_WARMUP["lora"] | lora if isinstance(lora, dict) else lora
        return PUBLISHED_WARMUP | value | {"lora": merged}

    @model_validator(mode="after")
    def _makes_checkpoints(self) -> "WarmupConfig":
        train = self.train
        if train.is_preference or train.corpus is not None or train.lora is None or train.lora.merge:
            raise ValueError(
                "train: a warm-up is made with objective sft and lora, not merged, on the recipe's corpus"
            )
        if train.max_steps is not None or train.num_train_epochs != int(train.num_train_epochs):
            raise ValueError(
                "train.num_train_epochs: a warm-up takes whole epochs, each of which leaves a checkpoint"
            )
        return self

    @property
    def epochs(self) -> int:
        """How many checkpoints it leaves."""
        return int(self.train.num_train_epochs)


FEW_ROWS: dict[str, Any] = {"per_device_train_batch_size": 1, "warmup_steps": 0}
"""What a training on the target takes where nothing else is given: of a few rows larger batches make a step or two, and
a warm-up of one step trains nothing in the first."""
Start = Literal["base", "reference", "warmup"]


class ReferenceConfig(Section):
    """How a reference model is made: the base, fine-tuned on the corpus or on the target."""

    fit: Literal["whole", "sample", "cross", "target"] = "whole"
    """`whole`: on all rows, as in DavIR's paper; `sample`: on a share of them; `cross`: one model a fold, each
    fine-tuned on the other folds, so that no row is measured by a model that saw it; `target`: on the rows of
    `target`."""
    fraction: Annotated[
        float, ReadIf(lambda reference: reference.fit == "sample", "it is for fit sample")
    ] = Field(0.1, gt=0, le=1)
    """Share of the rows that `sample` takes, by a hash of their content."""
    folds: Annotated[int, ReadIf(lambda reference: reference.fit == "cross", "it is for fit cross")] = Field(
        2, ge=2
    )
    """Number of models of `cross`."""
    start: Annotated[Start, ReadIf(lambda reference: reference.fit == "target", "it is for fit target")] = (
        "base"
    )
    """What `target` begins from: the base, the model called `reference`, or `warmup`: each of its checkpoints, which
    makes a model each (as Train on Validation does)."""
    train: TrainConfig = TrainConfig()
    """The training; objective `sft`, or for `target` from the base on pairs any. Where nothing else is given, `target`
    takes batches of one row, no `warmup_steps`, and a tenth of the learning rate of what it begins from (of the usual
    one where that is the base)."""

    @model_validator(mode="before")
    @classmethod
    def _for_few_rows(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("fit") != "target":
            return value
        train = value.get("train") or {}
        if not isinstance(train, dict):
            return value
        few = dict(FEW_ROWS)
        if train.get("deepspeed"):  # which may name a batch of its own
            del few["per_device_train_batch_size"]
        train = few | train
        if train.get("lr_scheduler_type") == "constant" and train["warmup_steps"] == 0:
            del train["warmup_steps"]  # nothing reads it
        return value | {"train": train}

    @model_validator(mode="after")
    def _trains_on_its_rows(self) -> "ReferenceConfig":
        if self.train.corpus is not None:
            raise ValueError("train: a reference is made on the recipe's corpus, or on its target")
        if self.train.is_preference and (self.fit, self.start) != ("target", "base"):
            raise ValueError(
                "train: a reference is made with objective sft; of pairs only by fit target, from the base"
            )
        if self.start != "base" and self.train.lora is not None and self.start == "warmup":
            raise ValueError(
                "train.lora: from `start: warmup` its adapters are trained on, with their own settings"
            )
        return self
