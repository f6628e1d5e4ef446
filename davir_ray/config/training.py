"""The recipe of a training: on the core-set, or on a corpus to make the reference. Names are TRL's where it has one."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from davir_ray.config.measuring import CorpusConfig
from davir_ray.config.section import ReadIf, Section, no_effect

Objective = Literal["sft", "dpo", "davir_dpo"]

FOR_SFT = ReadIf(lambda train: train.objective == "sft", "it is for objective sft")
FOR_DPO = ReadIf(lambda train: train.objective == "dpo", "it is for objective dpo")
FOR_PAIRS = ReadIf(
    lambda train: train.objective != "sft", "objective sft has no frozen policy; it is for dpo and davir_dpo"
)
WITH_EVAL = ReadIf(lambda train: train.eval_corpus is not None, "no eval_corpus is held out")
OWN_ZERO = ReadIf(lambda train: train.deepspeed is None, "`deepspeed` takes its place")


class LoraConfig(Section):
    """Train a LoRA adapter and leave the model's weights as they are. Names are PEFT's."""

    r: int = Field(16, ge=1)
    lora_alpha: int = Field(32, ge=1)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    layers_to_transform: tuple[int, ...] | None = None
    """Adapt only these layers, counted from 0; training stops its backward pass below the lowest."""
    merge: bool = False
    """Write the model with the adapter merged into it, instead of the adapter."""

    @model_validator(mode="after")
    def _layers_need_names(self) -> "LoraConfig":
        if self.layers_to_transform is not None and self.target_modules == "all-linear":
            raise ValueError("layers_to_transform needs target_modules to name the modules of a layer")
        return self


class TrainConfig(Section):
    """How a model is trained."""

    objective: Objective = "sft"
    """`sft`; `dpo`; `davir_dpo`: DPO with each side's log-ratio divided by its own frozen log-probability."""
    corpus: CorpusConfig | None = None
    """Train on this corpus instead of the run's core-set."""
    eval_corpus: CorpusConfig | None = None
    """Rows that are held out: their loss is told before, during and after training. Any that are also trained on are
    counted, not removed."""
    loss_type: Annotated[Literal["sigmoid", "sigmoid_norm", "ipo", "hinge"], FOR_DPO] = "sigmoid"
    """TRL's losses for `dpo`; `sigmoid_norm` divides each log-ratio by its number of tokens."""
    beta: Annotated[float | None, FOR_PAIRS] = Field(None, gt=0)
    """Strength of the pull to the frozen policy. Without it 0.1 for `dpo`, and for `davir_dpo` 10: the same pull
    where a response has 100 nats, because there a log-ratio counts as a share of its response's nats (10 for
    `sigmoid_norm` too, where it is divided by the number of tokens)."""
    frozen_logps: Annotated[Literal["auto", "store", "trainer"], FOR_PAIRS] = "auto"
    """Where the frozen policy's log-probabilities come from: the measurement store (what it lacks is measured), or
    a pass of the trainer before the first step (on one node only). `auto`: the store where both compute in float32."""
    lora: LoraConfig | None = None
    """Train an adapter; without it, all weights."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 on a GPU, float32 on a CPU."""
    num_train_epochs: Annotated[
        float, ReadIf(lambda train: train.max_steps is None, "`max_steps` takes its place")
    ] = Field(1.0, gt=0)
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many optimiser steps, in place of `num_train_epochs`."""
    per_device_train_batch_size: int = Field(8, ge=1)
    per_device_eval_batch_size: Annotated[int, WITH_EVAL] = Field(8, ge=1)
    gradient_accumulation_steps: int = Field(1, ge=1)
    gradient_checkpointing: bool = False
    learning_rate: float | None = Field(None, gt=0)
    """Without it 2e-5 for `sft` and 5e-7 for preferences, ten times that for LoRA."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    warmup_steps: Annotated[
        float,
        ReadIf(
            lambda train: train.lr_scheduler_type != "constant",
            "lr_scheduler_type constant has no warm-up; constant_with_warmup has",
        ),
    ] = Field(0.03, ge=0)
    """A number of steps, or below 1 a share of them."""
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = "random"
    """How rows are dealt into batches; `group_by_length` pads least, `sequential` keeps the order of ranks."""
    packing: Annotated[bool, FOR_SFT] = False
    """Put several rows into one sequence (`sft` only); rows do not see each other. Needs flash attention, so a GPU."""
    seed: int = 0
    logging_steps: int = Field(10, ge=1)
    eval_steps: Annotated[int | None, WITH_EVAL] = Field(None, ge=1)
    """Evaluate every so many steps; without it, after each epoch."""
    save_steps: int | None = Field(None, ge=1)
    """Write a checkpoint every so many steps; without it, after each epoch."""
    save_total_limit: int = Field(2, ge=1)
    """How many checkpoints are kept while training."""
    report_to: tuple[Literal["wandb", "mlflow", "tensorboard"], ...] = ()
    """Trackers that TRL reports to."""
    zero_stage: Annotated[Literal[0, 1, 2, 3] | None, OWN_ZERO] = 2
    """DeepSpeed's ZeRO stage; null trains without DeepSpeed."""
    offload_optimizer: Annotated[
        bool, OWN_ZERO, ReadIf(lambda train: bool(train.zero_stage), "it needs zero_stage 1, 2 or 3")
    ] = False
    """Keep the optimiser in host memory (ZeRO 1 to 3, GPUs)."""
    offload_param: Annotated[
        bool, OWN_ZERO, ReadIf(lambda train: train.zero_stage == 3, "it needs zero_stage 3")
    ] = False
    """Keep the weights in host memory (ZeRO 3, GPUs)."""
    deepspeed: dict[str, Any] | str | None = None
    """A DeepSpeed configuration of your own, or the path of its JSON; it takes the place of the three above."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """`auto`: a GPU where the cluster has one now."""
    wait_seconds: float = Field(0.0, ge=0)
    """How long to wait for room for all workers, where the cluster has too little yet (see `engine.wait_seconds`)."""
    num_workers: int = Field(1, ge=1)
    """How many processes train, each with a GPU or a share of the CPUs."""
    num_cpus_per_worker: float | None = Field(None, gt=0)
    """CPUs a worker holds; without it 1 beside a GPU, else its share of a node."""
    max_failures: int = Field(3, ge=0)
    """How often workers that die are started again from the last checkpoint."""

    @model_validator(mode="after")
    def _names_no_rows(self) -> "TrainConfig":
        """Refuse in a corpus to train on what is for one that is scored."""
        corpora = {"corpus": self.corpus, "eval_corpus": self.eval_corpus}
        idle = {
            f"{place}.{name}": "it is for the scored table, and these rows are not scored"
            for place, corpus in corpora.items()
            for name in ("id", "source_by", "group_by")
            if corpus is not None and getattr(corpus, name) is not None
        }
        if idle:
            raise no_effect(idle)
        return self

    @property
    def is_preference(self) -> bool:
        """Whether it trains on pairs."""
        return self.objective != "sft"
