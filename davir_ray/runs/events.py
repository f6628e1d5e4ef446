"""What a run writes down of its way: the lines of events.jsonl, for whoever looks at it while it works or later.

Nothing of a result depends on them. Names that are metrics too (cluster/ray_metrics.py) mean the same in both.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from davir_ray.storage.typed import Written


class Noted(Written):
    """What all lines have."""

    time: float
    """When it happened: seconds since 1970."""


class PrepareEvent(Noted):
    """The corpus is about to be read and tokenised."""

    event: Literal["prepare"]
    """Kind of event."""
    splits: int
    """Pieces of the corpus."""


class MeasureEvent(Noted):
    """A pass begins: one kind of measurement under one model."""

    event: Literal["measure"]
    """Kind of event."""
    role: str
    """Model label, such as `base`, `reference-0` or `base-token_loss`."""
    anew: bool
    """Whether it was planned by this start; false where an earlier one had begun it."""
    sequences: int
    """Sequences that the store lacked when the pass was planned."""
    tokens: int
    """Token ids of these sequences."""
    tokens_left: int
    """Token ids that are still to be measured."""
    retried_sequences: int
    """Sequences that engines had begun when an earlier start was stopped."""
    store: str
    """Folder of the store that the pass adds to."""


class ProgressEvent(Noted):
    """How far a pass is: once a minute, and at its end. What is counted is counted since this start of the pass."""

    event: Literal["progress"]
    """Kind of event."""
    role: str
    """Model label."""
    sequences: int
    """Sequences that engines measured: rows under a view."""
    tokens: int
    """Token ids that engines read."""
    counted_tokens: int
    """Of these, the tokens whose losses count."""
    tokens_per_second: float
    """Token ids a second, over all engines of the pass."""
    engine_seconds: float
    """Seconds in which engines measured, over all engines."""
    engine_restarts: int
    """Processes of engines that died, stalled or were lost."""
    retried_sequences: int
    """Sequences whose measuring was begun once more."""
    missing_sequences: int
    """Sequences that are still to be measured."""
    reuse_share: float
    """Part of the sequences that the store held already, 0 to 1."""


class MeasuredEvent(Noted):
    """A pass is over."""

    event: Literal["measured"]
    """Kind of event."""
    role: str
    """Model label."""
    seconds: float
    """Wall-clock seconds of this start of the pass."""
    engine_seconds: float
    """Seconds in which engines measured, over all engines."""
    retried_sequences: int
    """Sequences whose measuring was begun once more."""


class TargetEvent(Noted):
    """The rows of the target were measured."""

    event: Literal["target"]
    """Kind of event."""
    role: str
    """Model label."""
    seconds: float
    """Wall-clock seconds."""


class RankEvent(Noted):
    """The rows are about to be scored and ranked."""

    event: Literal["rank"]
    """Kind of event."""
    rows: int
    """Rows of the corpus."""


class SelectEvent(Noted):
    """The rules are about to be applied."""

    event: Literal["select"]
    """Kind of event."""
    ranked: int
    """Rows that have a score, and so a rank."""


class ChosenEvent(Noted):
    """The core-set is chosen and written."""

    event: Literal["chosen"]
    """Kind of event."""
    rows: dict[str, int]
    """Status -> rows of the corpus, by what became of them."""
    selected: int
    """Rows that were chosen."""


class RowsEvent(Noted):
    """The rows of a training are about to be prepared."""

    event: Literal["rows"]
    """Kind of event."""
    corpus: str
    """Hash of the files that they come from."""


class TrainEvent(Noted):
    """A training begins."""

    event: Literal["train"]
    """Kind of event."""
    rows: int
    """Rows to train on."""
    objective: str
    """`sft`, `dpo` or `davir_dpo`."""


class TrainedEvent(Noted):
    """A training is over."""

    event: Literal["trained"]
    """Kind of event."""
    steps: int
    """Optimizer steps."""
    train_loss: float | None
    """Mean training loss over all steps; null if the trainer does not say."""
    eval: dict[str, Any] = Field(default_factory=dict)
    """What was measured on held-out rows."""


ANY_EVENT: TypeAdapter[Noted] = TypeAdapter(
    Annotated[
        PrepareEvent
        | MeasureEvent
        | ProgressEvent
        | MeasuredEvent
        | TargetEvent
        | RankEvent
        | SelectEvent
        | ChosenEvent
        | RowsEvent
        | TrainEvent
        | TrainedEvent,
        Field(discriminator="event"),
    ]
)
"""Every kind of event, told apart by its name."""
