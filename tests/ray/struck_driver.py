"""`davir`, which strikes when its run comes to a moment that has a name.

    python -m tests.ray.struck_driver STRIKES ... where `...` is what is typed after `davir`

STRIKES is JSON: {MOMENT: [VICTIM, RAYLET]}. A moment is an event of the run (`prepare`, `measure`, `rank`, `select`),
which is about to be noted, `chunk:3`, when the third chunk of a model is measured, or `record`, when that is written
and the run not yet tidied up. A victim is `driver`, `worker` (a process of a node that runs tasks, at work if one is)
or `node`; of these two, RAYLET is the process that stands for the node.
"""

import json
import os
import signal
import sys
from collections.abc import Callable

import psutil

from davir_ray.cli import main
from davir_ray.cluster import ray_exchange
from davir_ray.measure.chunks import CHUNK_TOKENS
from davir_ray.measure.ray_meter import Meter
from davir_ray.runs.run import Run
from tests.ray.kill_victims import is_task, kill, workers_of


def kill_driver(raylet: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_worker(raylet: int) -> None:
    tasks = [one for idle in (False, True) for one in workers_of(raylet) if is_task(one, idle)]
    assert kill(tasks[0]), "it was gone"


def kill_node(raylet: int) -> None:
    node = psutil.Process(raylet)
    for process in [node, *node.children(recursive=True)]:
        process.kill()


VICTIMS = {"driver": kill_driver, "worker": kill_worker, "node": kill_node}


def before(owner: type, name: str, come_to: Callable[..., None]) -> None:
    """Call `come_to` with what a method is called with, before it."""
    method = getattr(owner, name)

    def watched(self, *args, **kwargs):
        come_to(self, *args)
        return method(self, *args, **kwargs)

    setattr(owner, name, watched)


def watch(strikes: dict[str, tuple[str, int]]) -> None:
    """Strike at the moments of a run."""

    def strike(moment: str) -> None:
        if moment in strikes:
            victim, raylet = strikes.pop(moment)
            print(f"struck: {victim} at {moment}", file=sys.stderr, flush=True)
            VICTIMS[victim](raylet)

    def measured(meter: Meter, counted: object) -> None:
        meter.come = getattr(meter, "come", 0) + 1
        strike(f"chunk:{meter.come}")

    before(Run, "event", lambda run, name: strike(name))
    before(Run, "tidy", lambda run: strike("record"))
    before(Meter, "add", measured)


if __name__ == "__main__":
    CHUNK_TOKENS["cpu"] = 300
    ray_exchange.ROWS_PER_TASK, ray_exchange.ROWS_PER_PIECE = 15, 1
    watch(json.loads(sys.argv.pop(1)))
    main()
