"""One training: rows are written down, workers train on them, and a record says what made the model.

It is a run like any other: named by all that decides its result, taken up where it stopped by the same command,
finished when its record is written.
"""

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from time import monotonic
from typing import Any, Literal

from davir_ray import storage
from davir_ray.cluster import ray_session
from davir_ray.cluster.unexpected import begun, stage
from davir_ray.config import TrainConfig
from davir_ray.errors import RecipeError, TrainingError
from davir_ray.job import (
    Job,
    engine_for,
    job_of,
    look_up_need,
    measure_models,
    prepare_corpus,
)
from davir_ray.logprobs.choice import Choice, numerics
from davir_ray.progress import say, warn
from davir_ray.runs.lease import leased
from davir_ray.runs.record import HeldOut, Overlaps, TrainingRecord, TrainingSettings
from davir_ray.runs.run import Run, training_id_of
from davir_ray.storage.layout import RunLayout
from davir_ray.store.mending import mended
from davir_ray.target.ray_overlap import overlaps_with
from davir_ray.train.checks import (
    batch_for,
    check_held_out,
    check_pairs,
    check_rows,
    check_settings,
    check_trainable,
    with_deepspeed,
)
from davir_ray.train.metrics import read_metrics
from davir_ray.train.ray_fit import await_workers, fit
from davir_ray.train.ray_rows import RowsWritten, count_shared, write_rows
from davir_ray.train.settings import beta_of, dtype_of, learning_rate_of
from davir_ray.train.sources import Source
from davir_ray.train.task import TrainTask

PACKAGES = ("torch", "transformers", "trl", "deepspeed", "peft", "ray")
Frozen = Literal["store", "trainer"] | None


@dataclass(frozen=True)
class Training:
    """A training under way. frozen: where the log-probabilities of the frozen policy come from, for pairs."""

    source: Source
    held_out: Source | None
    train: TrainConfig
    run: Run
    choice: Choice
    device: str
    frozen: Frozen


def training_run(source: Source, held_out: Source | None, train: TrainConfig, name: str) -> Run:
    """Name the run of a training; nothing is written."""
    inputs = source.inputs
    content = [source.digest, source.rows_digest, inputs.base.identity]
    content += [held_out.inputs.tokens_digest] if held_out is not None else []
    choice = engine_for(inputs)
    if frozen_from(train, choice, device_of(train)) == "store":
        content.append(json.dumps(numerics(choice, inputs.recipe.engine)))
    return Run.in_output(inputs.recipe.output, training_id_of(with_deepspeed(train), name, *content))


@stage(TrainingError)
def run_training(source: Source, held_out: Source | None, train: TrainConfig, name: str) -> TrainingRecord:
    """Train on the rows of a source, or find the model that did; return the record."""
    started = monotonic()
    train = with_deepspeed(train)
    run = training_run(source, held_out, train, name)
    if (record := run.record(TrainingRecord)) is not None:
        return _trained(run, record)
    with leased(run.paths.lease, f"training {run.run_id}") as lease:
        if (record := run.reopen(TrainingRecord)) is not None:  # another start was at work, and is done
            return _trained(run, record)
        record = _train(source, held_out, train, run, started)
        lease.check()
        tree = record.tree() | {"recipe": source.inputs.recipe.model_dump(mode="json")}
        storage.write_atomic(run.paths.made_by, json.dumps(tree, indent=2).encode())
        record = run.finish(record)
        forget_rows(run)
    return record


def _trained(run: Run, record: TrainingRecord) -> TrainingRecord:
    say(f"trained already: {run.folder}")
    forget_rows(run)
    return record


def _train(
    source: Source, held_out: Source | None, train: TrainConfig, run: Run, started: float
) -> TrainingRecord:
    device = device_of(train)
    check_settings(train, device)
    check_trainable(source.inputs.base, train)
    for one in filter(None, (source, held_out)):
        check_pairs(one.inputs.listing.has_pairs, train, one.what)
    await_workers(train, device)
    run = Run.begin(source.inputs.recipe, run.run_id, RunLayout.training)
    begun()
    forget_other_rows(run, source.inputs.tokens_digest)
    forget_old_log(run)
    say(f"training {run.run_id} on {source.what} (if it stops, the same command goes on)")
    choice = engine_for(source.inputs)
    training = Training(source, held_out, train, run, choice, device, frozen_from(train, choice, device))
    say_frozen(training)
    rows = write_all_rows(training)
    training = fitted(training, rows)
    run.event("train", rows=rows.rows, objective=train.objective)
    say(f"starting {train.num_workers} training worker(s) on {device}")
    fit(_task(training))
    record = record_of(training, rows, seconds=round(monotonic() - started, 1))
    run.event("trained", steps=record.steps, train_loss=record.train_loss, eval=record.eval.tree())
    return record


def forget_other_rows(run: Run, tokens_digest: str) -> None:
    """Begin anew a training that was begun on other files; one that goes on with them keeps its checkpoints."""
    begun_on = [event["corpus"] for event in run.events if "corpus" in event]
    if begun_on and begun_on[-1] != tokens_digest:
        say(f"training {run.run_id} begins anew: the files of its corpus are others than when it began")
        for folder in (run.paths.checkpoints, run.paths.epochs, run.paths.rows, run.paths.metrics):
            storage.delete(folder)
    run.event("rows", corpus=tokens_digest)


def forget_old_log(run: Run) -> None:
    """Delete the log of a training whose model is gone; one that goes on from a checkpoint keeps its own."""
    if not storage.list_folders(run.paths.checkpoints):
        storage.delete(run.paths.metrics)


def forget_rows(run: Run) -> None:
    """Delete what only an unfinished training needs."""
    for folder in (run.paths.rows, run.paths.eval_rows, run.paths.checkpoints):
        storage.delete(folder)


def device_of(train: TrainConfig) -> str:
    """Choose what workers train on."""
    if train.device != "auto":
        return train.device
    return "cuda" if ray_session.cluster_gpus() else "cpu"


def frozen_from(train: TrainConfig, choice: Choice, device: str) -> Frozen:
    """Choose where frozen log-probabilities come from.

    Two programs agree in float32. In bfloat16 they do not, and the policy would differ from itself before the first
    step.
    """
    if not train.is_preference:
        return None
    if choice.type == "hash" and train.frozen_logps == "store":
        raise RecipeError("train.frozen_logps: the numbers of engine hash are made up; set it to `trainer`")
    if train.frozen_logps != "auto":
        return train.frozen_logps
    exact = choice.type != "hash" and choice.dtype == dtype_of(train, device) == "float32"
    return "store" if exact else "trainer"


def say_frozen(training: Training) -> None:
    """Say where frozen log-probabilities come from."""
    if training.frozen:
        measured = f"{training.choice.type} measures in {training.choice.dtype}"
        trained = f"trained in {dtype_of(training.train, training.device)}"
        say(f"frozen log-probabilities: from the {training.frozen} ({measured}, {trained})")


@dataclass(frozen=True)
class RowCounts:
    """Rows to train on and rows held out, as the record names them."""

    rows: int
    left_out: int
    largest_id: int
    eval_rows: int | None = None
    eval_left_out: int | None = None
    eval_rows_trained_on: int | None = None
    overlaps: Overlaps | None = None


def write_all_rows(training: Training) -> RowCounts:
    """Write the rows to train on and those held out; return how many there are, and were left out."""
    inputs, paths = training.source.inputs, training.run.paths
    written = _write_rows(training, training.source, paths.rows, RunLayout.work_of_rows)
    if training.held_out is None:
        return RowCounts(written.rows, written.left_out, written.largest_id)
    held_out = _write_rows(training, training.held_out, paths.eval_rows, RunLayout.work_of_eval_rows)
    check_held_out(held_out.rows, held_out.largest_id, inputs.base, training.held_out.what)
    shared = count_shared(paths.rows, paths.eval_rows)
    if shared:
        warn(f"{shared:,} rows of {training.held_out.what} are also trained on")
    return RowCounts(
        rows=written.rows,
        left_out=written.left_out,
        largest_id=written.largest_id,
        eval_rows=held_out.rows,
        eval_left_out=held_out.left_out,
        eval_rows_trained_on=shared,
        overlaps=held_out.overlaps,
    )


def fitted(training: Training, rows: RowCounts) -> Training:
    """Return the training with a batch that its rows can fill, where they are known to be few; check that they do."""
    train, source = training.train, training.source
    if source.few:
        fitting = batch_for(train, rows.rows)
        if fitting != train:
            size = fitting.per_device_train_batch_size
            say(f"{source.what}: {rows.rows} rows, so per_device_train_batch_size is {size}")
        train = fitting
    check_rows(rows.rows, rows.largest_id, train, source.inputs.base, source.what)
    return replace(training, train=train)


def _write_rows(training: Training, source: Source, folder: str, work_folder: str) -> RowsWritten:
    run = training.run
    job = job_of(source.inputs, run, training.choice, work=work_folder)
    job = job.only("base") if training.frozen == "store" else job.only(None)
    work = partial(_write_picked, training, source, job, folder)
    return mended(work, job.prepared, job.stores, run.forget_work)


def _write_picked(training: Training, source: Source, job: Job, folder: str) -> RowsWritten:
    prepare_corpus(job)
    overlaps = found = None
    if source is training.held_out and source.inputs.few_shot is not None:
        overlaps = overlaps_with(job.prepared, source.inputs.listing, source.inputs.few_shot, source.what)
    if training.frozen == "store":
        measure_models(job, may_measure=True)
        found = look_up_need(job, "loss", "base")
    storage.delete(folder)
    written = write_rows(job.prepared, source.pick, found, folder, pairs=training.train.is_preference)
    if written.left_out:
        say(f"{source.what}: {written.left_out:,} rows left out (no tokens, no pair, or not measured)")
    return replace(written, overlaps=overlaps)


def _task(training: Training) -> TrainTask:
    inputs = training.source.inputs
    return TrainTask(
        train=training.train,
        base=inputs.recipe.models.base,
        identity=inputs.base.identity,
        folder=training.run.folder,
        evaluates=training.held_out is not None,
        device=training.device,
        max_length=inputs.recipe.tokens.max_length,
        keeps_epochs=training.source.keeps_epochs,
    )


def record_of(training: Training, rows: RowCounts, seconds: float) -> TrainingRecord:
    """Put down what made the model, and how it went."""
    train, inputs, run = training.train, training.source.inputs, training.run
    metrics = read_metrics(run.folder)
    return TrainingRecord(
        run_id=run.run_id,
        run_dir=run.folder,
        model=run.paths.model,
        epochs=epochs_of(run),
        metrics=run.paths.metrics,
        objective=train.objective,
        trained_on=training.source.what,
        core_set=training.source.digest,
        **{name: value for name, value in asdict(rows).items() if name != "largest_id"},
        base=inputs.base.identity,
        frozen_logps=training.frozen,
        settings=settings_of(train, training.device),
        steps=max((entry["step"] for entry in metrics), default=0),
        train_loss=next((one["train_loss"] for one in metrics if "train_loss" in one), None),
        eval=held_out_metrics(metrics),
        versions={name: version(name) for name in PACKAGES},
        seconds=seconds,
    )


def epochs_of(run: Run) -> tuple[str, ...]:
    """Name the checkpoints that a warm-up left, in order; none for other trainings."""
    return tuple(sorted(storage.list_folders(run.paths.epochs), key=lambda one: int(one.rsplit("/", 1)[-1])))


def settings_of(train: TrainConfig, device: str) -> TrainingSettings:
    """Say what the defaults came to."""
    return TrainingSettings(
        learning_rate=learning_rate_of(train),
        dtype=dtype_of(train, device),
        device=device,
        seed=train.seed,
        beta=beta_of(train) if train.is_preference else None,
    )


def held_out_metrics(metrics: list[dict[str, Any]]) -> HeldOut:
    """Return what was measured on held-out rows first, before training, and last."""
    entries = [entry for entry in metrics if "eval_loss" in entry]
    if not entries:
        return HeldOut()
    return HeldOut(before=_held_out(entries[0]), after=_held_out(entries[-1]))


def _held_out(entry: dict[str, Any]) -> dict[str, float]:
    return {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
