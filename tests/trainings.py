"""Recipes of tiny trainings, and what their logs say."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from davir_ray.recipe import Recipe, parse_recipe
from davir_ray.runs.record import TrainingRecord
from davir_ray.train.metrics import read_metrics

NOT_OF_THE_STEP = (
    "eval_runtime",
    "eval_samples_per_second",
    "eval_steps_per_second",
    "num_tokens",
    "eval_num_tokens",
)
"""Times, and TRL's count of tokens, which begins anew when a training is resumed."""


def write_rows(file: Path, count: int) -> str:
    """Write rows whose answers differ much in length: a mean over rows is no mean over tokens."""
    rows = [{"question": f"What is {i}?", "answer": f"It is {i}." * (1 + i * 3 % 8)} for i in range(count)]
    pq.write_table(pa.Table.from_pylist(rows), file)
    return str(file)


def write_pairs(file: Path, count: int) -> str:
    """Write pairs whose sides differ in length, each in its own way."""
    rows = [
        {
            "prompt": f"What is {i}?",
            "chosen": f"It is {i}." * (1 + i * 3 % 4),
            "rejected": "No idea." * (1 + i % 3),
        }
        for i in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)
    return str(file)


def recipe(folder: Path | str, base: str, corpus: str, train: dict[str, Any], **sections: Any) -> Recipe:
    """Describe a training on one CPU a worker that logs every step; store and runs lie in `folder`."""
    tree = {
        "corpus": {"paths": corpus},
        "models": {"base": base},
        "engine": {"type": "hash"},
        "score": {"name": "base_loss"},
        "train": {"num_cpus_per_worker": 1, "logging_steps": 1, "device": "cpu", **train},
        "store": f"{folder}/store",
        "output": f"{folder}/runs",
    }
    return parse_recipe(tree | sections, "test")


def one_thread() -> None:
    """Let every process of Ray compute in one thread, so that sums come out alike."""
    os.environ["OMP_NUM_THREADS"] = "1"


def losses(record: TrainingRecord) -> list[float]:
    """Return the logged loss of every step, from step 1 on, each logged once."""
    entries = [entry for entry in read_metrics(record.run_dir) if "loss" in entry]
    assert [entry["step"] for entry in entries] == list(range(1, record.steps + 1))
    return [entry["loss"] for entry in entries]


def curve(record: TrainingRecord) -> list[dict[str, float]]:
    """Return all that was logged of each step, without the closing line of the last start."""
    entries = [entry for entry in read_metrics(record.run_dir) if "train_loss" not in entry]
    return [
        {name: value for name, value in entry.items() if name not in NOT_OF_THE_STEP} for entry in entries
    ]


def last_start(record: TrainingRecord) -> int:
    """Return the step after which the last start began: its closing `train_loss` is the mean of those since."""
    closing, values = read_metrics(record.run_dir)[-1]["train_loss"], losses(record)
    return next(
        step
        for step in range(len(values))
        if abs(sum(values[step:]) / len(values[step:]) - closing) < 1e-5 * closing
    )
