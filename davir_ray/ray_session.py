"""Connect to Ray: the cluster that a job runs on, or one of this machine's own."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from typing import Any

import ray
import ray.data

from davir_ray import errors
from davir_ray.errors import DavirError, EngineError

CHATTY = {
    "ray._private.authentication.authentication_token_setup": logging.ERROR,
    "ray.data": logging.WARNING,
    "ray.data._internal.progress": logging.ERROR,
}
"""Loggers that say the same at every start, and from which level on they are heard."""


joined = False
"""Whether this process is on a cluster because `connect` was called."""


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names (`ray job submit` sets it), else start Ray on this machine."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    for name, level in CHATTY.items():
        logging.getLogger(name).setLevel(level)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING)
    else:
        _start_here()
    quiet_ray_data()
    global joined
    joined = True


def leave() -> None:
    """Leave the cluster that `connect` joined; until then, what workers print may come after our own last line."""
    if joined:
        ray.shutdown()


def _start_here() -> None:
    # Workers import what the driver can: a score or an engine of the user's own may lie in the working folder.
    os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    # "local", or Ray would look for a cluster that was last started here, and may be gone.
    # What workers print stays in Ray's session folder: libraries there say a great deal of their own accord.
    try:
        ray.init(address="local", include_dashboard=False, logging_level=logging.WARNING, log_to_driver=False)
    except Exception as error:  # Ray raises it bare, as where a machine is too busy for its time limits
        raise EngineError(f"Ray could not be started on this machine, try again: {error}") from error


def quiet_ray_data() -> None:
    """Keep Ray Data's progress out of the output, which has a progress line of its own."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def batches(dataset: ray.data.Dataset) -> AbstractContextManager[Iterator[Any]]:
    """Run a dataset and iterate over its blocks.

    Leaving the context ends the run and lets its actors go, also when an error is on its way out: the
    traceback would keep the iterator, and with it the actors' CPUs, for as long as somebody holds the error.
    """
    return closing(iter(dataset.iter_batches(batch_size=None)))  # type: ignore[type-var]


def told(error: DavirError) -> str:
    """Write an error of ours as a worker hands it to the driver: Ray Data would lose it in an exception of its own."""
    return f"{type(error).__name__}: {json.dumps(error.args)}"


def raise_told(text: str) -> None:
    """Raise the error that a worker told of; nothing happens for an empty text."""
    if text:
        name, _, arguments = text.partition(": ")
        raise getattr(errors, name)(*json.loads(arguments))


def cluster_gpus() -> int:
    """Count the GPUs of the cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def cluster_cpus() -> int:
    """Count the CPUs of the cluster."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def node_cpus() -> int:
    """Count the CPUs of the cluster's largest node."""
    return max(1, *(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]))
