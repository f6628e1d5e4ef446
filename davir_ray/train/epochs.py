"""What each epoch of a warm-up leaves: its adapter, and the optimiser's moments by the names of its parameters."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, get_scheduler

from davir_ray.errors import TrainingError
from davir_ray.influence.moments import FIRST, SECOND, Moments, write_moments
from davir_ray.progress import warn
from davir_ray.storage.layout import RunLayout
from davir_ray.train.model_folder import finish, upload


class KeepEpochs(TrainerCallback):
    """Writes a checkpoint after the last step of each epoch, before the trainer's own of that step: a training that is
    resumed from there has all before it.

    folder: the run's. base: the folder that training began from; base_name: what the recipe calls it.
    """

    def __init__(self, folder: str, base: Path, base_name: str) -> None:
        self.folder, self.base, self.base_name = folder, base, base_name

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kept: Any
    ) -> None:
        """Gather adapter and moments from all workers, and let one of them write."""
        epochs = round(args.num_train_epochs)
        epoch, steps_into_next = divmod(state.global_step, state.max_steps // epochs)
        if steps_into_next:
            return
        moments = moments_of(kept["model"], kept["optimizer"])
        with whole_parameters(kept["model"]):
            if state.is_world_process_zero:
                rate = mean_learning_rates(args, state.max_steps, epochs)[epoch - 1]
                found = Moments(moments[FIRST], moments[SECOND], rate, epoch, state.global_step)
                self._write(kept["model"], found)

    def _write(self, model: PeftModel, moments: Moments) -> None:
        folder = Path(tempfile.mkdtemp())
        try:
            model.save_pretrained(str(folder))
            write_moments(folder, moments)
            finish(folder, self.base, self.base_name, merge=False)
            upload(folder, RunLayout(self.folder).epoch(moments.epoch))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class TellIdleTraining(TrainerCallback):
    """Warns of a training in which the learning rate is 0 in every step, of all of it or of an epoch that is kept."""

    def __init__(self, keeps_epochs: bool) -> None:
        self.keeps_epochs = keeps_epochs

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Look at the schedule before the first step."""
        epochs = round(args.num_train_epochs) if self.keeps_epochs else 1
        if state.is_world_process_zero and 0.0 in mean_learning_rates(args, state.max_steps, epochs):
            steps, warming = state.max_steps // epochs, args.get_warmup_steps(state.max_steps)
            warn(
                f"warmup_steps: the learning rate is 0 in every step of {'an epoch' if self.keeps_epochs else 'it'}: "
                f"there are {steps:,}, and {warming:,} warm up from 0; lower warmup_steps, or "
                "per_device_train_batch_size for more steps"
            )


def whole_parameters(model: PeftModel) -> AbstractContextManager[object]:
    """Bring what is trained of a model together on every worker, where ZeRO 3 has split it. All workers take part."""
    trained = [one for one in model.parameters() if one.requires_grad]
    if not any(hasattr(one, "ds_id") for one in trained):
        return nullcontext()
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters

    gathered: AbstractContextManager[object] = GatheredParameters(trained)
    return gathered


def moments_of(model: PeftModel, optimizer: Any) -> dict[str, dict[str, Tensor]]:
    """Return Adam's moments, `exp_avg` and `exp_avg_sq`, by parameter. All workers of a training take part."""
    found: dict[str, dict[str, Tensor]] = {FIRST: {}, SECOND: {}}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            for part in (FIRST, SECOND):
                found[part][_saved_as(name)] = _moment(name, parameter, optimizer, part)
    return found


def _saved_as(name: str) -> str:
    """Return the name of a parameter as PEFT saves it: without that of the adapter."""
    return name.replace(".default.", ".")


def _moment(name: str, parameter: Any, optimizer: Any, part: str) -> Tensor:
    if hasattr(parameter, "_hp_mapping") or hasattr(
        parameter, "ds_id"
    ):  # ZeRO has split it among the workers
        from deepspeed.utils import safe_get_full_optimizer_state

        moment = safe_get_full_optimizer_state(parameter, part)
    else:
        moment = optimizer.state.get(parameter, {}).get(part)
    if moment is None:
        raise TrainingError(
            f"the optimiser has no {part} of {name}; a warm-up needs Adam's moments of all it trains"
        )
    shape = parameter.ds_shape if hasattr(parameter, "ds_shape") else parameter.shape
    whole: Tensor = moment.detach().float().cpu().reshape(shape)
    return whole


def mean_learning_rates(args: TrainingArguments, steps: int, epochs: int) -> list[float]:
    """Return the mean learning rate of each epoch: what its checkpoint weighs in a sum over checkpoints.

    steps: of the whole training. The schedule is computed again; nothing depends on what was logged.
    """
    rates = np.fromiter(_rates(args, steps), dtype=np.float64)
    bounds = [round(steps * epoch / epochs) for epoch in range(epochs + 1)]
    return [float(rates[first:stop].mean()) for first, stop in zip(bounds, bounds[1:], strict=False)]


def _rates(args: TrainingArguments, steps: int) -> Iterator[float]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=args.learning_rate)
    scheduler = get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        num_warmup_steps=args.get_warmup_steps(steps),
        num_training_steps=steps,
    )
    for _ in range(steps):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()
