"""How far a training is, read from its files alone: the sibling of status.py, which knows runs that score."""

from collections.abc import Iterator
from time import time
from typing import Any

from davir_ray import storage
from davir_ray.errors import DamagedPart
from davir_ray.progress import ago, warn
from davir_ray.runs.record import TrainingRecord
from davir_ray.runs.run import Run
from davir_ray.storage.layout import RunLayout
from davir_ray.storage.sealed import read_object
from davir_ray.storage.typed import Written
from davir_ray.train.metrics import read_metrics

LOGGED = ("loss", "eval_loss", "eval_rewards/accuracies")
"""What is told of the newest entries that have it."""


Cells = tuple[str, str, str, str, str, str]
"""What a line has of a run or a training: name, label, state, age, score with rules, and how far it is."""


class TrainingStatus(Written):
    """How far a training is, read from its files."""

    run_id: str
    """Name of the training."""
    label: str | None = None
    """What people call it; null where nobody does."""
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
        if self.label:
            yield f"label     {self.label}"
        yield f"progress  {self.progress}; {ago(self.age)}"
        if self.record:
            yield f"model     {self.record.model}"
        else:
            yield "resume    the command that began it goes on with it"

    def cells(self) -> Cells:
        """Tell it in the cells of a line."""
        state = "finished" if self.record else "unfinished"
        return self.run_id, self.label or "", state, ago(self.age), "", self.progress

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
        label=_label(run),
        folder=run.folder,
        step=newest.get("step", 0),
        max_steps=newest.get("max_steps"),
        logged={name: newest[name] for name in LOGGED if name in newest},
        age=time() - max(written) if written else None,
        record=record,
        finished=record is not None,
    )


def _label(run: Run) -> str | None:
    try:
        label = read_object(run.paths.training).get("label")
    except DamagedPart as damage:
        warn(str(damage))
        return None
    return label if isinstance(label, str) else None
