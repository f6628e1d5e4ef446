"""The plan of a run, as `davir plan --json` prints it."""

from typing import Literal

from davir_ray.runs.changes import Change
from davir_ray.runs.record import Facts
from davir_ray.storage.typed import Written

Unpriced = Literal["warmup", "target"]


class PlannedView(Written):
    """What one model would measure in one view. Rows count once, however often the corpus has them."""

    model: str
    """Label of the model, such as `base` or `reference-0`."""
    view: str
    """View of the rows: `response`, `response_alone`, `prompt`, `rejected`, or what is exported of pairs."""
    rows: int
    """Rows that the view has."""
    missing: int
    """Rows that would be measured."""
    tokens: int
    """Token ids of the rows that would be measured, prompts included."""
    failed: int
    """Rows that are known to make every engine fail, and are not tried again."""
    why: dict[str, int]
    """Reason why rows would be measured, such as `new_row` -> rows."""


class PassEstimate(Written):
    """What measuring one model would take."""

    tokens_per_second: float
    """Tokens a second of one engine, learnt from earlier runs or from a probe."""
    busy_seconds: float
    """Seconds that engines would be busy, summed over all engines."""
    seconds: float
    """Wall-clock seconds."""
    gpu_hours: float
    """Hours of GPUs; 0 on CPUs."""
    engines: int
    """Engines at work at once."""
    basis: str
    """What the speed was learnt from, in words."""


class TimeEstimate(Written):
    """What measuring would take: models one after the other, without loading, reading and ranking.

    The sums are over `models`, `warmup` and `target`.
    """

    busy_seconds: float
    """Seconds that engines would be busy, summed over all engines and models."""
    seconds: float
    """Wall-clock seconds."""
    gpu_hours: float
    """Hours of GPUs; 0 on CPUs."""
    models: dict[str, PassEstimate]
    """Model label -> the same of this model alone, for those that have something to measure."""
    warmup: PassEstimate | None = None
    """The training of the warm-up; null where it is made, not asked for, or not priced."""
    target: PassEstimate | None = None
    """The target's rows under all models; null where they are measured, not to be measured, or not priced."""
    not_priced: tuple[Unpriced, ...] = ()
    """What is to be done, and is not in the sums: no probe and no earlier pass tells how fast it goes."""


class RunPlan(Facts):
    """What a run would measure and why, what it would reuse, and how long measuring would take.

    `run_id` and `run_dir` are null while models that are a part of a run's name are still to be made.
    """

    last_run: str | None
    """Name of the latest finished run of this recipe's name, which the plan is compared with; null without one."""
    finished: bool
    """Whether the run is finished already."""
    to_make: tuple[str, ...]
    """Roles of models that are still to be trained (`reference`, `warmup`, `target`); of that time no more than a
    warm-up's is in the plan, where a probe was asked for."""
    changes: tuple[Change, ...]
    """What differs from the last run besides the rows."""
    measured: dict[str, int]
    """Model label -> sequences that would be measured."""
    reused: dict[str, int]
    """Model label -> sequences that would not: the store holds them, or they are known to fail."""
    tokens: dict[str, int]
    """Model label -> token ids of the sequences that would be measured."""
    views: tuple[PlannedView, ...]
    """The same by model and view, with the reasons."""
    estimate: TimeEstimate | None
    """How long measuring would take; null where no earlier run tells how fast it goes."""
