"""Connect to Ray: the cluster that a job runs on, or one of this machine's own."""

import json
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, suppress
from typing import Any

import ray
import ray.data
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import GcsClient  # type: ignore[attr-defined]

from davir_ray import errors
from davir_ray.cluster.unexpected import in_one_line
from davir_ray.errors import DavirError, EngineError, Unexpected

CHATTY = {
    "ray._private.authentication.authentication_token_setup": logging.ERROR,
    "ray.data": logging.WARNING,
    "ray.data._internal.progress": logging.ERROR,
}
"""Loggers that say the same at every start, and from which level on they are heard."""


ANSWER_SECONDS = 20.0
"""How long the head of a cluster may take to answer."""
STDERR = 2
"""Where Ray's C++ writes, by its number: `sys.stderr` may be anything."""

joined = False
"""Whether this process is on a cluster because `connect` was called."""


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names (`ray job submit` sets it), else start Ray on this machine.

    Raises `EngineError` if neither can be had.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Of several tasks that fail, the first ends the stage: Ray would print the tracebacks of the others.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    for name, level in CHATTY.items():
        logging.getLogger(name).setLevel(level)
    if address := os.environ.get("RAY_ADDRESS"):
        _join(address)
    else:
        _start_here()
    quiet_ray_data()
    _hear_restart_warning()
    if threading.current_thread() is threading.main_thread():
        signal.signal(
            signal.SIGTERM, signal.default_int_handler
        )  # ends as Ctrl-C does; Ray would dump its stack
    global joined
    joined = True


def leave() -> None:
    """Leave the cluster that `connect` joined; until then, what workers print may come after our own last line."""
    if joined:
        ray.shutdown()


def _join(address: str) -> None:
    """Join a cluster, if it answers: Ray itself would ask for minutes."""
    if "://" not in address and address != "local":
        _check_answers(address)
    try:
        ray.init(logging_level=logging.WARNING)
    except Exception as error:  # Ray raises it bare
        raise EngineError(f"RAY_ADDRESS={address}: cannot be joined: {in_one_line(error)}") from error


def _check_answers(address: str) -> None:
    """Raise `EngineError` unless a cluster answers within `ANSWER_SECONDS`."""
    found = canonicalize_bootstrap_address(address)  # `auto` is the cluster last started on this machine
    if found is None:
        raise EngineError(
            f"RAY_ADDRESS={address}: no cluster runs on this machine; `ray start --head` starts one"
        )
    resolved = "" if found == address else f" ({found})"
    answers = f"nobody answers at RAY_ADDRESS={address}{resolved} within {ANSWER_SECONDS:g} seconds"
    hint = "`ray status` tells of a cluster that runs; without RAY_ADDRESS, davir starts Ray on this machine"
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS / 2).close()
    except (OSError, ValueError) as error:
        raise EngineError(f"{answers}: {error}; {hint}") from error
    # A port may be open, and another program behind it. Ray's client waits in C++, deaf to time limits and signals.
    asking = threading.Thread(target=_ask, args=(found,), daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS / 2)
    if asking.is_alive():
        raise EngineError(f"{answers}, though the port is open: no head of a Ray cluster; {hint}")


def _ask(address: str) -> None:
    with suppress(Exception):  # what a cluster answers is told by who joins it
        GcsClient(address=address)


def _hear_restart_warning() -> None:
    """Let Ray say, unheard, what it says once a process where an actor may be restarted and has arguments in its store.

    Ray Data starts all its actors so, and holds their arguments for as long as they live, so that nothing is amiss;
    but the line reads like a failure. This actor asks for what no node has: it never starts.
    """
    nowhere = ray.remote(num_cpus=0, max_restarts=1, resources={"davir_nowhere": 1})(_Nobody)
    argument = ray.put(None)
    sys.stderr.flush()
    heard, nothing = os.dup(STDERR), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, STDERR)
        actor = nowhere.remote(argument)
    finally:
        os.dup2(heard, STDERR)
        os.close(heard)
        os.close(nothing)
    ray.kill(actor)  # type: ignore[arg-type]


class _Nobody:
    def __init__(self, argument: object) -> None:
        pass


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
    """Run a dataset and iterate over its blocks, each as soon as it is there: none is fetched ahead.

    Leaving the context ends the run and lets its actors go, also when an error is on its way out: the
    traceback would keep the iterator, and with it the actors' CPUs, for as long as somebody holds the error.
    """
    return closing(iter(dataset.iter_batches(batch_size=None, prefetch_batches=0)))  # type: ignore[type-var]


def encode_error(error: Exception) -> str:
    """Write an error as a worker hands it to the driver: Ray Data would lose it in an exception of its own.

    One that nobody foresaw is told with its traceback.
    """
    if not isinstance(error, DavirError):
        where = "".join(traceback.format_exception(error))
        error = Unexpected(in_one_line(error), worker_traceback=where)
    return f"{type(error).__name__}: {json.dumps(error.args)}"


def raise_encoded(text: str, stage: type[DavirError] = DavirError) -> None:
    """Raise the error that a worker told of; nothing happens for an empty text.

    stage: whose exit code has what nobody foresaw.
    """
    if not text:
        return
    name, _, arguments = text.partition(": ")
    error = getattr(errors, name)(*json.loads(arguments))
    if isinstance(error, Unexpected):
        error.exit_code = stage.exit_code
    raise error


def cluster_gpus() -> int:
    """Count the GPUs of the cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def cluster_cpus() -> int:
    """Count the CPUs of the cluster."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def node_cpus() -> int:
    """Count the CPUs of the cluster's largest node."""
    return max(1, *(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]))
