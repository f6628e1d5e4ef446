"""DPO with frozen log-probabilities from the store, beside TRL's two ways, in one run and on the same pairs.

    .venv/bin/python benchmarks/dpo_frozen_logps.py --model quickstart/models/smollm2-135m-instruct \
        --corpus '../shared/data/hh-helpful/train-00000*' --out benchmarks/dpo_frozen_logps.json

store        rows carry what was measured: one model, no extra pass
precompute   TRL computes it before the first step (`precompute_ref_log_probs`)
ref_model    TRL's default: a second model, asked at every step

Each way runs in a process of its own, after one another; full weights, float32, no DeepSpeed.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WAYS = ("store", "precompute", "ref_model")


def main() -> None:
    """Prepare the pairs, run each way, print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--rows", type=int, default=80)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(train(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        figures: dict[str, Any] = {"pairs": write_pairs(arguments, folder)}
        figures |= {way: in_own_process(way, folder) for way in WAYS}
    print(json.dumps(figures, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n")


def in_own_process(way: str, folder: str) -> dict[str, float]:
    """Run one way; return its figures."""
    command = [sys.executable, *sys.argv, "--way", way, "--folder", folder]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def write_pairs(arguments: argparse.Namespace, folder: str) -> int:
    """Tokenise and measure the pairs as a training would; return how many there are."""
    import ray

    from davir_ray.cluster import ray_session
    from davir_ray.inputs import PAIRS, check_inputs
    from davir_ray.job import engine_for, job_of, look_up_need, measure_models, prepare_corpus
    from davir_ray.recipe import parse_recipe
    from davir_ray.runs.run import Run
    from davir_ray.train.pick import Everything
    from davir_ray.train.ray_rows import write_rows

    tree = {
        "corpus": {"paths": arguments.corpus, "limit": arguments.rows},
        "tokens": {"max_length": 192, "truncation": "drop"},
        "models": {"base": arguments.model},
        "engine": {"type": "transformers"},
        "store": f"{folder}/store",
        "output": f"{folder}/runs",
    }
    inputs = check_inputs(parse_recipe(tree, "benchmark"), PAIRS)
    ray_session.connect()
    job = job_of(inputs, Run.begin(inputs.recipe, "benchmark"), engine_for(inputs))
    prepare_corpus(job)
    measure_models(job, may_measure=True)
    found = look_up_need(job, "loss", "base")
    written = write_rows(job.prepared, Everything(), found, f"{folder}/rows", pairs=True)
    ray.shutdown()
    return written.rows


def train(arguments: argparse.Namespace) -> dict[str, float]:
    """Train one way; return seconds before the first step, seconds a step, and the peak of memory."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl.trainer.dpo_config import DPOConfig

    from davir_ray.config import TrainConfig
    from davir_ray.train.arguments import arguments_of
    from davir_ray.train.dataset import PairCollator, fetch_rows, open_rows
    from davir_ray.train.trainers import PairTrainer

    steps: list[float] = []

    class Clock(TrainerCallback):
        """Notes when each step begins, and when the last ends."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            steps.append(time.monotonic())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            steps.append(time.monotonic())

    file = Path(arguments.folder) / f"{arguments.way}.arrow"
    fetch_rows(f"{arguments.folder}/rows", file)
    rows = open_rows(file)
    if arguments.way != "store":
        rows = rows.remove_columns(["ref_chosen_logps", "ref_rejected_logps"])
    config = TrainConfig(
        objective="dpo", per_device_train_batch_size=2, max_steps=arguments.steps, zero_stage=None
    )
    output = f"{arguments.folder}/{arguments.way}"
    trl = arguments_of(config, output, "cpu", max_length=192, evaluates=False, resumes=False)
    assert isinstance(trl, DPOConfig)
    trl.save_strategy = "no"
    trl.precompute_ref_log_probs = arguments.way != "ref_model"
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    started = time.monotonic()
    trainer = PairTrainer(
        model=model,
        args=trl,
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=PairCollator(0),
        callbacks=[Clock()],
    )
    loss = trainer.train().training_loss
    seconds = [b - a for a, b in zip(steps[:-1], steps[1:], strict=True)]
    return {
        "seconds_before_first_step": round(steps[0] - started, 2),
        "seconds_a_step": round(statistics.median(seconds), 3),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "training_loss": loss,
    }


if __name__ == "__main__":
    main()
