"""Train on a cluster of two nodes, and lose the one that trains: a process of its own, for it is a driver of its own.

python -m tests.ray.lost_node RECIPE; the last line that it prints is the record.
"""

import json
import logging
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from davir_ray.cluster import ray_session
from davir_ray.runs.run import load_run_or_recipe
from davir_ray.train import steps as training
from tests.ray.disturbances import disturbed, train_workers


def main(path: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    ray_session.quiet_ray_data()
    lost: list[int] = []

    def lose() -> None:
        pid = {node: node.all_processes["raylet"][0].process.pid for node in cluster.worker_nodes}
        node = next(node for node in cluster.worker_nodes if train_workers(pid[node]))
        lost.append(len(train_workers(pid[node])))
        cluster.remove_node(node, allow_graceful=False)

    with disturbed(Path(path).parent, lose):
        record = training.train(*load_run_or_recipe(path, []))
    assert (lost, len(cluster.worker_nodes)) == ([2], 1), "a node was lost with its two workers"
    print(json.dumps(record.tree()), flush=True)
    ray.shutdown()  # before the cluster goes, or this process would end with an error
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
