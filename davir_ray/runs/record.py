"""The record of a run and of a training: their public result, as `record.json` holds it and --json prints it.

Another program reads them with this module:

    from davir_ray.runs.record import load_record

    record = load_record("runs/alpaca-0123456789ab")
    print(record.selected, "of", record.rows, "rows; the core-set is in", record.coreset["parquet"])

The JSON schemas are in docs/schemas/, and docs/records.md tells of every field.
"""

from typing import Literal, TypeVar

from pydantic import Field

from davir_ray import storage
from davir_ray.coreset.summary import Summary
from davir_ray.runs.results import RESULTS, ResultFile
from davir_ray.storage.layout import RunLayout
from davir_ray.storage.sealed import read_sealed
from davir_ray.storage.typed import Written, parsed


class EngineUsed(Written):
    """The engine that measured the models of a run."""

    type: str
    """Name of the engine, such as `vllm` or `transformers`."""
    dtype: str
    """Floating-point type that the models were run in, such as `bfloat16`."""
    reason: str
    """Why this engine was chosen."""


class SkippedFile(Written):
    """A file of the corpus that could not be read."""

    path: str
    """The file."""
    reason: str
    """Why it could not be read."""


class Facts(Written):
    """How a run was made, or would be made."""

    schema_version: Literal[1] = 1
    """Version of this layout. A reader refuses another one."""
    run_id: str | None
    """Name of the run: the recipe's name and a hash of everything that decides the result."""
    run_dir: str | None
    """Folder of the run: a path or a URI."""
    davir_ray: str
    """Version of davir_ray."""
    ray: str
    """Version of Ray."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Package -> version, of the others that decide the numbers: pyarrow, and those that the engine computes with."""
    score: str
    """Name of the score, such as `davir`."""
    score_code: str
    """Hash of the source of a score that is given by import path; empty for one of davir_ray's own."""
    formats: dict[str, str]
    """Source of the corpus -> format in which its rows were understood."""
    not_read: dict[str, dict[str, int | None]]
    """Source -> column or key that nothing read -> rows with a value there; null where the file does not tell."""
    models: dict[str, tuple[str, ...]]
    """Name of a model -> hash of its content: `base`; `reference`, which may be one a fold; `warmup`, `prior` and
    `target`, with a number (`warmup-0`) where they are a series."""
    target: str | None = None
    """Hash of the rows of the target; null where nothing depends on them."""
    engine: EngineUsed
    """What measured the models."""
    measurements: dict[str, str]
    """Model label -> folder of the store that holds its measurements."""
    bad_files: tuple[SkippedFile, ...]
    """Files of the corpus that were left out."""


class Counts(Written):
    """How many sequences were measured, by model label.

    A label is a model's name, with a kind (`base-token_loss`, `warmup-0-rose`) and a fold (`reference-0`) where there
    is one.
    """

    measured: dict[str, int]
    """Model label -> sequences that this run measured, since the store did not hold them."""
    measured_again: dict[str, int]
    """Model label -> sequences whose measuring was begun once more, after a stop or a loss."""
    reused: dict[str, int]
    """Model label -> sequences that the store held when the run was first planned."""


class Chosen(Summary):
    """The result of ranking and choosing: its figures, and where its files are."""

    scored: str
    """Folder of the scored table: every row of the corpus once, with its score, rank and status."""
    coreset: dict[str, str]
    """Export format -> folder of the core-set in that format."""


class Overlap(Written):
    """A row of the target that is in the corpus."""

    target: str
    """File and row, from 0."""
    corpus: str
    """File and row, from 0."""
    near: bool
    """Whether it is nearly the same row, not the same."""


class Overlaps(Written):
    """What a corpus has of a target."""

    named: tuple[Overlap, ...] = ()
    """The first of each row of the target, by the order of files."""
    same: int = 0
    """Rows of the corpus that are the same as a row of the target."""
    near: int = 0
    """Others that are nearly the same as one."""


class RunRecord(Chosen, Counts, Facts):
    """The record of a run that scored, ranked and chose."""

    run_id: str
    """Name of the run: the recipe's name and a hash of everything that decides the result."""
    run_dir: str
    """Folder of the run: a path or a URI."""
    overlaps: Overlaps | None = None
    """Rows of the corpus that are rows of the target too; null without a target."""
    seconds: float
    """Wall-clock seconds of the start that finished the run."""
    results: dict[str, ResultFile] = Field(default_factory=dict, exclude=True)
    """Result file, named below the run's folder -> its size and digest. In record.json, not in what --json prints."""


class TrainingSettings(Written):
    """What the defaults of a training came to."""

    learning_rate: float
    """Highest learning rate of the schedule."""
    dtype: str
    """Floating-point type that was trained in."""
    device: str
    """`cpu` or `cuda`."""
    seed: int
    """Seed of the order of rows, and of whatever else is drawn."""
    beta: float | None = None
    """Weight of the divergence from the frozen policy; null where there are no pairs."""


class HeldOut(Written):
    """Metrics on held-out rows, by name as the trainer logs them without `eval_`; empty if nothing was held out."""

    before: dict[str, float] = Field(default_factory=dict)
    """Before the first step."""
    after: dict[str, float] = Field(default_factory=dict)
    """After the last step."""


class TrainingRecord(Written):
    """The record of a training."""

    schema_version: Literal[1] = 1
    """Version of this layout. A reader refuses another one."""
    run_id: str
    """Name of the training: the recipe's name, what it is for, and a hash of everything that decides the result."""
    run_dir: str
    """Folder of the training: a path or a URI."""
    model: str
    """Folder of the model that was trained, in the layout of Hugging Face."""
    epochs: tuple[str, ...] = ()
    """Folders of the checkpoints that a warm-up leaves, one an epoch; empty for other trainings."""
    metrics: str
    """File of what was logged: a JSON object a line."""
    objective: str
    """`sft`, `dpo` or `davir_dpo`."""
    trained_on: str
    """What was trained on, in words."""
    core_set: str
    """Name of the choice of rows: for a core-set a hash of its examples in the order of their ranks."""
    rows: int
    """Rows that were trained on."""
    left_out: int
    """Rows that were not: without tokens, without a pair, or not measured."""
    eval_rows: int | None = None
    """Held-out rows; null if nothing was held out."""
    eval_left_out: int | None = None
    """Rows left out of those; null if nothing was held out."""
    eval_rows_trained_on: int | None = None
    """Held-out rows that are also among the rows trained on; null if nothing was held out."""
    overlaps: Overlaps | None = None
    """Held-out rows that are rows of the target too; null if nothing was held out, or without a target."""
    base: str
    """Hash of the content of the model that training began from."""
    frozen_logps: Literal["store", "trainer"] | None
    """Where the log-probabilities of the frozen policy came from; null where there are no pairs."""
    settings: TrainingSettings
    """What the defaults came to."""
    steps: int
    """Optimizer steps."""
    train_loss: float | None
    """Mean training loss over all steps, as the trainer says it; null if it does not."""
    eval: HeldOut
    """What was measured on held-out rows."""
    versions: dict[str, str]
    """Package -> its version."""
    seconds: float
    """Wall-clock seconds of the start that finished the training."""
    results: dict[str, ResultFile] = Field(default_factory=dict, exclude=True)
    """Result file, named below the training's folder -> its size and digest. In record.json alone."""


class ReferenceRecord(Written):
    """The models that `davir reference` made, or found: all that the recipe makes to measure under."""

    models: dict[str, tuple[str, ...]]
    """Role (`reference`, `warmup`, `target`) -> folders of its models: one, one a fold, or one a checkpoint."""
    trainings: tuple[TrainingRecord, ...]
    """The trainings that made them, in order; a warm-up makes several models."""


class JobRecord(RunRecord):
    """What `davir run` did: the record of the run, and those of the trainings before and after it."""

    reference: ReferenceRecord | None = None
    """The models that were made or found to measure under; null if the recipe makes none."""
    train: TrainingRecord | None = None
    """The training on the core-set; null if the recipe asks for none, or nothing was chosen."""


R = TypeVar("R", RunRecord, TrainingRecord)


def load_record(folder: str) -> RunRecord:
    """Read the record of the run in a folder.

    Raises `FileNotFoundError` while the run is not finished, and `DamagedPart` (file, field, what was expected) for a
    record that was changed, or that has another `schema_version`. Whether the result files are there is not looked at.
    """
    return read_record(storage.real_folder(folder), RunRecord)


def load_training(folder: str) -> TrainingRecord:
    """Read the record of the training in a folder, as `load_record` does that of a run."""
    return read_record(storage.real_folder(folder), TrainingRecord)


def read_record(folder: str, model: type[R]) -> R:
    """Read a record of one kind or the other; `folder` is no link."""
    uri = RunLayout(folder).record
    return parsed(model, read_sealed(uri, RESULTS), uri)
