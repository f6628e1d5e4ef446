"""TRL's trainers of pairs, built in this process without DeepSpeed."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from davir_ray.config import TrainConfig
from davir_ray.schema import IGNORED, View
from davir_ray.train.arguments import arguments_of
from davir_ray.train.dataset import PairCollator
from davir_ray.train.trainers import PairTrainer

Row = tuple[list[int], list[bool]]


def rows_of(chosen: list[Row], rejected: list[Row]) -> dict[str, list[list[int]]]:
    """Write sides as the columns of TRAINING."""

    def labels(side: list[Row]) -> list[list[int]]:
        return [[i if s else IGNORED for i, s in zip(*row, strict=True)] for row in side]

    return {
        "input_ids": [ids for ids, _ in chosen],
        "labels": labels(chosen),
        "rejected_input_ids": [ids for ids, _ in rejected],
        "rejected_labels": labels(rejected),
    }


def model_of(base: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def trainer_of(
    kind: type[PairTrainer], base: str, model: PreTrainedModel, rows: dict[str, list], out: Path, **train: Any
) -> PairTrainer:
    """Build a trainer with the arguments that the recipe would give it."""
    settings = {"zero_stage": None, "logging_steps": 1, "max_steps": 1, "save_steps": 100} | train
    config = TrainConfig.model_validate({"objective": "dpo"} | settings)
    return kind(
        model=model,
        args=arguments_of(config, str(out), "cpu", max_length=192, evaluates=False, resumes=False),
        train_dataset=Dataset.from_dict(rows),
        processing_class=AutoTokenizer.from_pretrained(base),
        data_collator=PairCollator(0),
    )


def ref_logps_by_trl(base: str, sides: list[list[Row]], out: Path) -> dict[View, list[float]]:
    """Return the log-probabilities that TRL's own `compute_ref_log_probs` finds for each side of a batch."""
    rows = rows_of(*sides)
    carried = {name: [0.0] * len(sides[0]) for name in ("ref_chosen_logps", "ref_rejected_logps")}
    trainer = trainer_of(PairTrainer, base, model_of(base), rows | carried, out)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(sides[0]))])
    chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
    return {View.RESPONSE: chosen.tolist(), View.REJECTED: rejected.tolist()}
