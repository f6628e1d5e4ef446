"""The Ray Train run around the workers: how many, on what, where checkpoints lie, and what is said meanwhile."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import ray
from pyarrow.fs import FileSystem, FSSpecHandler, LocalFileSystem, PyFileSystem
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train.torch import TorchConfig
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from davir_ray import storage
from davir_ray.cluster import ray_session
from davir_ray.cluster.unexpected import in_one_line, unwrapped
from davir_ray.config import TrainConfig
from davir_ray.errors import DamagedPart, DavirError, TrainingError, Unexpected, Unreachable
from davir_ray.measure.ray_room import await_room
from davir_ray.progress import duration, say, telling
from davir_ray.storage.filesystems import filesystem
from davir_ray.storage.layout import RunLayout
from davir_ray.train.metrics import metrics_at
from davir_ray.train.task import TrainTask, train_worker

SECONDS_BETWEEN_LOOKS = 2.0
LONGEST_WAIT_S = 4 * 3600
"""How long workers wait for each other: for one that fetches rows or writes a large model, too."""

ABORT_SECONDS = 60.0
"""How long an interrupted training waits for its workers' end."""


class Trainer(TorchTrainer):
    """Ray Train's, but for Ctrl-C: that one would end the process without a word, as if nothing had happened."""

    def _register_sigint_handler(self, controller: Any) -> None:
        """Let SIGINT end the workers and raise `KeyboardInterrupt`, unless whoever began the process has it ignored."""
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, partial(_interrupted, controller))


def _interrupted(controller: Any, signum: int, frame: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a second one does not wait for the workers
    say("ending the workers; Ctrl-C once more does not wait for them")
    with suppress(
        RayActorError, GetTimeoutError
    ):  # a controller that has ended, and one that cannot be reached
        ray.get(controller.abort.remote(), timeout=ABORT_SECONDS)
    raise KeyboardInterrupt


def fit(task: TrainTask) -> None:
    """Run the workers to the end, from the last checkpoint if there is one.

    Raises `TrainingError`, or what a worker raised: an error of ours as it is, any other as `Unexpected`.
    """
    trainer = Trainer(
        train_worker,
        train_loop_config={"task": task},
        scaling_config=scaling(task.train, task.device),
        torch_config=TorchConfig(
            backend="nccl" if task.device == "cuda" else "gloo", timeout_s=LONGEST_WAIT_S
        ),
        run_config=_run_config(task),
    )
    with _watching(task), _sigint_restored():
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise _as_ours(error) from error


def await_workers(train: TrainConfig, device: str) -> None:
    """Wait for room for all workers, as long as the settings allow. Raises `TrainingError` if there comes none."""
    what = f"train.num_workers: {train.num_workers} (device {device})"
    await_room(what, held_by_worker(train, device), train.num_workers, train.wait_seconds, TrainingError)


def held_by_worker(train: TrainConfig, device: str) -> dict[str, float]:
    """Choose what each worker holds: a GPU, or its share of a node's CPUs."""
    cpus = train.num_cpus_per_worker
    if cpus is None:
        cpus = 1.0 if device == "cuda" else max(1, ray_session.node_cpus() // train.num_workers)
    return {"CPU": cpus} | ({"GPU": 1} if device == "cuda" else {})


def scaling(train: TrainConfig, device: str) -> ScalingConfig:
    """Tell Ray Train how many workers there are, and what each holds."""
    return ScalingConfig(
        num_workers=train.num_workers,
        use_gpu=device == "cuda",
        resources_per_worker=held_by_worker(train, device),
    )


def _run_config(task: TrainTask) -> RunConfig:
    filesystem, path = _filesystem(task.folder)
    # These are read when libraries are imported, which is before a worker does anything.
    environment = {"DS_ACCELERATOR": task.device, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
    return RunConfig(
        name=RunLayout.checkpoints,
        storage_path=path,
        storage_filesystem=filesystem,
        failure_config=FailureConfig(max_failures=task.train.max_failures),
        checkpoint_config=CheckpointConfig(num_to_keep=task.train.save_total_limit),
        worker_runtime_env={"env_vars": environment},
    )


def _filesystem(uri: str) -> tuple[FileSystem, str]:
    """Hand Ray the filesystem that everything else of the run goes through."""
    fs, path = filesystem(uri)
    return (LocalFileSystem() if storage.is_local(fs) else PyFileSystem(FSSpecHandler(fs))), path


def _as_ours(error: TrainingFailedError) -> DavirError:
    """Return what a worker raised, ours before all others; else the last line of what Ray says."""
    failures = [unwrapped(one) for one in getattr(error, "worker_failures", {}).values()]
    for one in failures:
        if isinstance(one, DavirError):
            return one
    for one in failures:
        if not type(one).__module__.startswith("ray."):
            return Unexpected(in_one_line(one), TrainingError.exit_code, worker_traceback=str(error))
    first = failures[0] if failures else error
    lines = [line for line in str(first).splitlines() if line.strip()]
    return TrainingError(f"training stopped: {lines[-1] if lines else type(first).__name__}")


@contextmanager
def _sigint_restored() -> Iterator[None]:
    """Take Ray Train's handler of SIGINT back, which holds its controller in memory."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _watching(task: TrainTask) -> Iterator[None]:
    """Say what workers log, while they run."""
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(task.folder, over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(folder: str, over: threading.Event) -> None:
    said, first, started = len(_logged(folder)), 0, time.monotonic()
    newest: dict[str, Any] = {}
    last_look = False

    def line() -> str:
        return f"train: {progress_line(newest, first, time.monotonic() - started)}"

    with telling(line):
        while not last_look:
            last_look = over.wait(SECONDS_BETWEEN_LOOKS)
            entries = _logged(folder)
            for entry in entries[said:]:
                if not first:
                    first, started = entry["step"], time.monotonic()
                newest = newest | entry
            said = max(said, len(entries))


def _logged(folder: str) -> list[dict[str, Any]]:
    """Read what workers logged so far; what cannot be read is looked at again soon, and is nothing until then."""
    try:
        return metrics_at(RunLayout(folder).metrics)
    except (OSError, Unreachable, DamagedPart):
        return []


def progress_line(entry: dict[str, Any], first_step: int, seconds: float) -> str:
    """Describe what was logged last. first_step: where this start began; seconds: how long ago."""
    if not entry:
        return "before the first step"
    step, total = entry["step"], entry["max_steps"]
    values = [
        f"{name} {value:.4g}" for name, value in entry.items() if name in SHOWN and isinstance(value, float)
    ]
    left = ""
    if first_step < step < total:
        left = f", {duration((total - step) * seconds / (step - first_step))} left"
    return ", ".join([f"step {step} of {total}", *values]) + left


SHOWN = (
    "loss",
    "eval_loss",
    "rewards/accuracies",
    "rewards/margins",
    "eval_rewards/accuracies",
    "eval_rewards/margins",
    "train_loss",
)
"""What is said of a log entry; all of it is in metrics.jsonl."""
