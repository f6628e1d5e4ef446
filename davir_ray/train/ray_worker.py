"""What each Ray Train worker does: load the base, train with TRL from the last checkpoint, write the model."""

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray.train
import torch
import torch.distributed
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
)

from davir_ray import storage
from davir_ray.errors import ModelError, TrainingError
from davir_ray.models.resolve import ResolvedModel, resolve
from davir_ray.storage.layout import RunLayout
from davir_ray.train.arguments import arguments_of, load_dtype, peft_config, told_what_fits
from davir_ray.train.dataset import PairCollator, fetch_rows, open_rows
from davir_ray.train.epochs import KeepEpochs, TellIdleTraining
from davir_ray.train.model_folder import finish, upload
from davir_ray.train.ray_callbacks import ReportCheckpoint, WriteMetrics
from davir_ray.train.task import TrainTask
from davir_ray.train.trainers import DavirDPOTrainer, PairTrainer, RowTrainer


def work(task: TrainTask) -> None:
    """Train, from the last checkpoint if there is one, and write the model."""
    _prepare_process(task)
    base = resolve(task.base)
    if base.identity != task.identity:
        raise ModelError(f"{base.model_path}: is not the model that the driver saw; name a revision")
    with _scratch() as scratch, _checkpoint() as checkpoint:
        trainer = _trainer(task, base, scratch, resumes=checkpoint is not None)
        trainer.train(resume_from_checkpoint=checkpoint)
        if task.evaluates and not _evaluated(trainer):
            trainer.evaluate()
        _check_finite(trainer)
        _write_model(trainer, task, base, scratch / "model")


def _prepare_process(task: TrainTask) -> None:
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    if task.device == "cpu":
        import deepspeed

        # Its all-reduce through shared memory is compiled at the first start; gloo needs no compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        # On GPUs accelerate does this; without it ZeRO 3 splits the weights for one worker.
        deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)


@contextmanager
def _scratch() -> Iterator[Path]:
    """Make a folder that the workers of a node share, and remove it at the end."""
    name = [uuid4().hex]
    torch.distributed.broadcast_object_list(name, src=0)
    folder = Path(tempfile.gettempdir()) / f"davir-train-{name[0]}"
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        if ray.train.get_context().get_local_rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _checkpoint() -> Iterator[str | None]:
    """Bring the last checkpoint to this node; None at the first start."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        yield None
    else:
        with checkpoint.as_directory() as folder:
            yield folder


def _trainer(task: TrainTask, base: ResolvedModel, scratch: Path, *, resumes: bool) -> Trainer:
    """Build the trainer of the objective. Arguments come before the model: ZeRO-3 splits weights while they load."""
    arguments = arguments_of(
        task.train,
        str(scratch),
        task.device,
        max_length=task.max_length,
        evaluates=task.evaluates,
        resumes=resumes,
    )
    tokenizer = AutoTokenizer.from_pretrained(base.tokenizer_path, trust_remote_code=False)
    common: dict[str, Any] = {
        "model": _model(task, base),
        "args": arguments,
        "train_dataset": _rows(task, RunLayout.rows, scratch),
        "eval_dataset": _rows(task, RunLayout.eval_rows, scratch) if task.evaluates else None,
        "processing_class": tokenizer,
        "peft_config": None if base.adapter_path else peft_config(task.train.lora),
        "callbacks": [
            TellIdleTraining(task.keeps_epochs),
            *_keeping_epochs(task, base),
            ReportCheckpoint(),
            WriteMetrics(task.folder),
        ],
    }
    with told_what_fits(common["model"], "warmup.train.lora" if task.keeps_epochs else "train.lora"):
        trainer = _trainer_of(task.train.objective, common)
    trainer.remove_callback(PrinterCallback)  # metrics.jsonl has it all
    return trainer


def _trainer_of(objective: str, common: dict[str, Any]) -> Trainer:
    if objective == "sft":
        return RowTrainer(**common)
    _check_frozen(common["train_dataset"])
    kind = DavirDPOTrainer if objective == "davir_dpo" else PairTrainer
    return kind(**common, data_collator=PairCollator(_padding(common["processing_class"])))


def _keeping_epochs(task: TrainTask, base: ResolvedModel) -> list[KeepEpochs]:
    if not task.keeps_epochs:
        return []
    return [KeepEpochs(task.folder, Path(base.model_path), task.base.model_name_or_path)]


def _model(task: TrainTask, base: ResolvedModel) -> PreTrainedModel | PeftModel:
    """Load what training begins from; an adapter over it is trained on."""
    attention = {"attn_implementation": "flash_attention_2"} if task.train.packing else {}
    model = AutoModelForCausalLM.from_pretrained(
        base.model_path, dtype=load_dtype(task.train, task.device), trust_remote_code=False, **attention
    )
    return (
        PeftModel.from_pretrained(model, base.adapter_path, is_trainable=True) if base.adapter_path else model
    )


def _check_frozen(rows: Any) -> None:
    """Raise `TrainingError` where TRL would compute frozen log-probabilities on several nodes: a file hands them on."""
    context = ray.train.get_context()
    if (
        "ref_chosen_logps" not in rows.column_names
        and context.get_local_world_size() < context.get_world_size()
    ):
        raise TrainingError(
            "train.frozen_logps: the trainer can compute them on one node only; set it to `store`"
        )


def _padding(tokenizer: PreTrainedTokenizerBase) -> int:
    """Choose the id that fills batches; what it is has no consequence, since it is masked."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def _rows(task: TrainTask, name: str, scratch: Path) -> Any:
    """Open rows of the run; one worker of a node fetches them for all."""
    file = scratch / f"{name}.arrow"
    if ray.train.get_context().get_local_rank() == 0:
        fetch_rows(storage.join(task.folder, name), file)
    torch.distributed.barrier()
    return open_rows(file)


def _evaluated(trainer: Trainer) -> bool:
    """Tell whether the model was evaluated as it stands."""
    evaluated = [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry]
    return bool(evaluated) and evaluated[-1] == trainer.state.global_step


def _check_finite(trainer: Trainer) -> None:
    """Raise `TrainingError` if training diverged: such a model is not written."""
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if losses and not math.isfinite(losses[-1]):
        raise TrainingError(
            f"the loss is {losses[-1]} at step {trainer.state.global_step}; lower learning_rate"
        )


def _write_model(trainer: Trainer, task: TrainTask, base: ResolvedModel, folder: Path) -> None:
    """Write the model to the run's folder. All workers take part: under ZeRO-3 each holds a share."""
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        merge = task.train.lora is not None and task.train.lora.merge
        finish(folder, Path(base.model_path), task.base.model_name_or_path, merge=merge)
        upload(folder, RunLayout(task.folder).model)
