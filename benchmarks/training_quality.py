"""What the objectives do on real rows that they are not trained on: SFT on GSM8K, preferences on HH (helpful).

    .venv/bin/python benchmarks/training_quality.py --model quickstart/models/smollm2-135m-instruct \
        --data ../shared/data --out benchmarks/training_quality.json

Each training is `davir train` on a corpus, with rows held out. The preference losses share rows, batches, seed and
learning rate, and take their frozen log-probabilities from one store.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from davir_ray.cli.training_lines import training_lines
from davir_ray.recipe import parse_recipe
from davir_ray.runs.record import TrainingRecord
from davir_ray.train.steps import train

LORA = {
    "r": 16,
    "lora_alpha": 32,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "layers_to_transform": list(range(15, 30)),
}
SFT: dict[str, Any] = {"objective": "sft", "learning_rate": 5e-4}
PLACES = ("run_dir", "model", "metrics")
PREFERENCES: dict[str, dict[str, Any]] = {
    "dpo": {"objective": "dpo"},
    "dpo, sigmoid_norm": {"objective": "dpo", "loss_type": "sigmoid_norm", "beta": 10.0},
    "davir_dpo": {"objective": "davir_dpo"},
}


def main() -> None:
    """Train with each objective; print and write what held-out rows say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--held-out", type=int, default=96)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        records = {name: told(record.tree()) for name, record in trainings(arguments, work)}
    if arguments.out:
        arguments.out.write_text(json.dumps(records, indent=2) + "\n")


def told(record: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a record where things lay."""
    return {name: value for name, value in record.items() if name not in PLACES}


def trainings(arguments: argparse.Namespace, work: str) -> Iterator[tuple[str, TrainingRecord]]:
    """Run every training; yield its name and its record."""
    gsm8k, hh = arguments.data / "gsm8k", arguments.data / "hh-helpful"
    jobs = [("sft", SFT, f"{gsm8k}/train-00000*", f"{gsm8k}/test-*", 384)]
    jobs += [
        (name, {"learning_rate": 1e-4} | objective, f"{hh}/train-00000*", f"{hh}/train-00001*", 192)
        for name, objective in PREFERENCES.items()
    ]
    for name, settings, rows, held_out, max_length in jobs:
        tree = {
            "corpus": {"paths": rows},
            "tokens": {"max_length": max_length, "truncation": "drop"},
            "models": {"base": arguments.model},
            "engine": {"type": "transformers", "num_cpus": 1},
            "train": {
                "corpus": {"paths": rows, "limit": arguments.rows},
                "eval_corpus": {"paths": held_out, "limit": arguments.held_out},
                "lora": LORA,
                "num_cpus_per_worker": 1,
                "max_failures": 0,
            }
            | settings,
            "store": f"{work}/store",
            "output": f"{work}/runs",
        }
        record = train(parse_recipe(tree, name), "quality")
        print("\n".join([name, *training_lines(record)]), flush=True)
        yield name, record


if __name__ == "__main__":
    main()
