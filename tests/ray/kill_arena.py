"""A cluster on which runs are struck: a process of its own, which owns all that it kills.

python -m tests.ray.kill_arena NODES. A line of stdin is a round as JSON, a line of stdout what came of it. The head has
no CPUs and is never struck; each of NODES has one. What is missing of them is replaced after a round.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from ray.cluster_utils import Cluster

from tests.ray.kill_job import Hung, Job, Missed
from tests.ray.kill_victims import Process, is_engine, is_task, kill, workers_of

QUICK = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500}
"""So that the cluster notices a lost node in seconds."""


class Arena:
    """The cluster, and what can happen to it while a job runs."""

    def __init__(self, nodes: int) -> None:
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = nodes
        self.fill()

    def fill(self) -> None:
        """Replace the nodes that are missing."""
        while len(self.cluster.worker_nodes) < self.nodes:
            self.add_node()

    def add_node(self) -> str:
        """Add a node; return its name in the cluster."""
        return str(self.cluster.add_node(num_cpus=1).node_id)

    def raylets(self) -> dict[int, object]:
        """Return the nodes by the process that stands for each."""
        nodes = self.cluster.worker_nodes
        return {node.all_processes["raylet"][0].process.pid: node for node in nodes}

    def workers(self) -> list[Process]:
        """List the processes that Ray runs code of ours in."""
        return [worker for raylet in self.raylets() for worker in workers_of(raylet)]

    def play(self, played: dict) -> dict:
        """Run a job to its end, and strike it on the way; one that nothing struck is stopped where a strike missed."""
        job = Job(played["command"], Path(played["folder"]), self.cluster.address)
        struck: list[dict] = []
        try:
            job.start()
            for strike in played["strikes"]:
                struck.append(self.strike(job, strike))
            return {"strikes": struck, **job.finish()}
        except Missed as missed:
            told = job.finish() if struck or job.has_ended() else {}
            return {"strikes": struck, "missed": str(missed), **told}
        except Hung as hung:
            return {"strikes": struck, **job.finish(), "code": f"hung: {hung}"}
        finally:
            job.stop()
            self.fill()

    def strike(self, job: Job, strike: dict) -> dict:
        """Wait for the moment of a strike, aim, and strike; in `part`, while a measurement is being written."""
        victim, stage = strike["victim"], strike["stage"]
        job.wait_for(stage, strike["seconds"], strike["files"])
        for _ in moments(job, stage, strike["files"]):
            targets = getattr(self, f"aim_at_{victim}")(job, stage)
            if not targets or (stage == "part" and not job.writes_soon()):
                continue
            written = job.has_record()
            if written and stage != "record":
                continue  # aiming took too long
            if hit := getattr(self, f"hit_{victim}", self.hit)(job, targets):
                return {"victim": victim, "stage": stage, "hit": hit, "record": written}
        raise Missed(f"{stage} ended before a {victim} could be struck")

    def aim_at_driver(self, job: Job, stage: str) -> list[Process]:
        """Find the command itself."""
        return [] if job.has_ended() else [Process(job.process.pid, "driver")]

    def aim_at_actor(self, job: Job, stage: str) -> list[Process]:
        """Find the processes that hold an engine."""
        return [one for one in self.workers() if is_engine(one, stage)]

    def aim_at_worker(self, job: Job, stage: str) -> list[Process]:
        """Find processes that run a task; in `record` there is none, and any that waits for one will do."""
        return [one for one in self.workers() if is_task(one, idle=stage == "record")]

    def aim_at_node(self, job: Job, stage: str) -> list[Process]:
        """Find the node with most of the stage's engines, or else the one that does most, with all that is on it."""
        busy = {raylet: activity(workers_of(raylet), stage) for raylet in self.raylets()}
        raylet = max(busy, key=lambda pid: busy[pid])
        engines, working = busy[raylet]
        idle = not engines if stage in ("measuring", "part") else stage == "reading" and not working
        return [] if idle else [Process(raylet, "raylet"), *workers_of(raylet)]

    def aim_at_newcomer(self, job: Job, stage: str) -> list[Process]:
        """Find nothing in particular."""
        return [Process(os.getpid(), "newcomer")]

    def hit(self, job: Job, targets: list[Process]) -> str | None:
        """Kill one process, if there is one that has a file half written."""
        return kill(max(targets, key=lambda one: one.writes(job.folder)))

    def hit_driver(self, job: Job, targets: list[Process]) -> str:
        """Kill the driver, and start its command again."""
        job.stop()
        job.start()
        return "driver"

    def hit_node(self, job: Job, targets: list[Process]) -> str:
        """Kill a node at once."""
        node = self.raylets()[targets[0].pid]
        titles = [kill(one) for one in targets]
        self.cluster.remove_node(node, allow_graceful=False)
        return ", ".join(filter(None, titles))

    def hit_newcomer(self, job: Job, targets: list[Process]) -> str:
        """Add a node."""
        return self.add_node()


def activity(workers: list[Process], stage: str) -> tuple[int, int]:
    """Count the processes that hold an engine, which are constructed, and those that work for the job."""
    engines = [one for one in workers if is_engine(one, stage) and "__init__" not in one.title]
    return len(engines), sum(map(is_busy, workers))


def is_busy(worker: Process) -> bool:
    """Tell whether a process of a node works for the job."""
    return is_task(worker) or is_engine(worker, "measuring") or is_engine(worker, "reading")


def moments(job: Job, stage: str, files: int) -> Iterator[None]:
    """Come back as long as a stage lasts; raise `Hung` if it does not end."""
    while job.stage(files) == ("measuring" if stage == "part" else stage) and not job.has_ended():
        yield
        time.sleep(0.001)
        job.check_time(f"a strike in {stage}")


def serve(arena: Arena, rounds: TextIO, answers: TextIO) -> None:
    """Play the rounds that come in."""
    for line in rounds:
        print(json.dumps(arena.play(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no answer
    serve(Arena(int(sys.argv[1])), sys.stdin, answers)
