"""What happens while TRL trains: checkpoints go to the run's storage, metrics to a file that anybody can read."""

import shutil
from pathlib import Path
from typing import Any

import ray.train
import torch.distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from davir_ray.errors import Unreachable
from davir_ray.progress import warn
from davir_ray.train.metrics import write_metrics


class ReportCheckpoint(TrainerCallback):
    """Hand each checkpoint to Ray Train: one worker of a node uploads what all workers of the node wrote."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Wait for all workers to have written, then upload, and keep nothing on the node."""
        torch.distributed.barrier()
        if _ends_within_epoch(state):
            return
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        uploads = ray.train.get_context().get_local_rank() == 0
        checkpoint = ray.train.Checkpoint.from_directory(folder) if uploads else None
        logged = state.log_history[-1] if state.log_history else {}
        ray.train.report({**logged, "step": state.global_step}, checkpoint=checkpoint)
        if uploads:
            shutil.rmtree(folder)


def _ends_within_epoch(state: TrainerState) -> bool:
    """Tell whether training ends here, in the middle of an epoch: from there transformers would go one step further."""
    return state.global_step >= state.max_steps and not float(state.epoch or 0).is_integer()


class WriteMetrics(TrainerCallback):
    """Write everything that was logged, from the first step on, as JSON lines."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write the file anew; `log_history` comes back with a checkpoint."""
        if state.is_world_process_zero:
            entries = [{"max_steps": state.max_steps} | entry for entry in state.log_history]
            try:
                write_metrics(self.folder, entries)
            except (OSError, Unreachable) as error:  # no reason to stop a training
                warn(f"metrics of step {state.global_step} were not written: {error}")
