"""How far a training is, read from its files alone: the sibling of status.py, which knows runs that score."""

from collections.abc import Iterator
from time import time
from typing import Any

from davir_ray import storage
from davir_ray.progress import ago
from davir_ray.runs.record import TrainingRecord
from davir_ray.runs.run import Run
from davir_ray.storage.layout import RunLayout
from davir_ray.storage.typed import Written
from davir_ray.train.metrics import read_metrics

LOGGED = ("loss", "eval_loss", "eval_rewards/accuracies")
"""What is told of the newest entries that have it."""


class TrainingStatus(Written):
    """How far a training is, read from its files."""

    run_id: str
    """Name of the training."""
    folder: str
    """Folder of the training."""
    step: int
    """Optimizer steps done."""
    max_steps: int | None
    """Optimizer steps in all; null before the first step."""
    logged: dict[str, float]
    """Metric -> its newest value."""
    age: float | None
    """Seconds since the newest metrics; null if there are none."""
    record: TrainingRecord | None
    """Record of the training; null while it is unfinished."""
    finished: bool
    """Whether the training is finished."""

    def lines(self) -> Iterator[str]:
        """Tell all of it."""
        yield f"training  {self.run_id}  ({'finished' if self.record else 'unfinished'})"
        yield f"progress  {self.progress}; {ago(self.age)}"
        if self.record:
            yield f"model     {self.record.model}"
        else:
            yield "resume    the command that began it goes on with it"

    def line(self) -> str:
        """Tell it in one line."""
        return (
            f"{self.run_id}  {'finished' if self.record else 'unfinished'}  {ago(self.age)}  {self.progress}"
        )

    @property
    def progress(self) -> str:
        """Tell how far it is, and what was logged last."""
        if self.max_steps is None:
            return "before the first step"
        values = (f", {name} {value:.4g}" for name, value in self.logged.items())
        return f"step {self.step:,} of {self.max_steps:,}" + "".join(values)


def training_status(folder: str) -> TrainingStatus:
    """Look at one training."""
    run = Run.from_folder(folder)
    newest: dict[str, Any] = {}
    for entry in read_metrics(run.folder):
        newest |= entry
    record = run.record(TrainingRecord)
    written = [file.modified for file in storage.files_in(run.folder, RunLayout.metrics)]
    return TrainingStatus(
        run_id=run.run_id,
        folder=run.folder,
        step=newest.get("step", 0),
        max_steps=newest.get("max_steps"),
        logged={name: newest[name] for name in LOGGED if name in newest},
        age=time() - max(written) if written else None,
        record=record,
        finished=record is not None,
    )
