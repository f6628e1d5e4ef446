import pytest

from davir_ray.config import EngineConfig, TrainConfig
from davir_ray.errors import EngineError, TrainingError
from davir_ray.logprobs.choice import Choice
from davir_ray.measure import ray_room
from davir_ray.measure.ray_room import await_engine, await_room, room
from davir_ray.train import ray_fit

LAPTOP = [{"CPU": 2.0}]
GPUS = [{"CPU": 8.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 4.0}]
CUDA = Choice("vllm", "bfloat16", "cuda", "")


@pytest.mark.parametrize(
    ("bundle", "nodes", "expected"),
    [
        ({"CPU": 1, "GPU": 1}, GPUS, 8),
        ({"CPU": 1, "GPU": 8}, GPUS, 0),
        ({"CPU": 3, "GPU": 1}, GPUS, 4),
        ({"CPU": 1.0}, LAPTOP, 2),
        ({"CPU": 0.5}, LAPTOP, 4),
        ({"CPU": 1, "GPU": 1}, LAPTOP, 0),
        ({"CPU": 1, "GPU": 0}, LAPTOP, 2),
    ],
)
def test_bundles_are_counted_node_by_node(bundle, nodes, expected):
    assert room(bundle, nodes) == expected


@pytest.fixture
def cluster(monkeypatch):
    """A cluster that is told, and that counts what it is asked for; it has another node at the third look."""

    class Cluster:
        nodes, later, looks, asked, removed = LAPTOP, LAPTOP, 0, [], 0

        def look(self):
            self.looks += 1
            return self.nodes if self.looks < 4 else self.later

    told = Cluster()
    told.asked = []
    monkeypatch.setattr(ray_room, "_nodes", told.look)
    monkeypatch.setattr(ray_room, "SECONDS_BETWEEN_LOOKS", 0.001)
    monkeypatch.setattr(ray_room, "placement_group", lambda bundles: told.asked.extend(bundles))
    monkeypatch.setattr(
        ray_room, "remove_placement_group", lambda group: setattr(told, "removed", told.removed + 1)
    )
    return told


def test_gpus_that_a_cluster_has_not_are_told_at_once_with_what_it_has(cluster):
    with pytest.raises(EngineError) as raised:
        await_engine(EngineConfig(device="cuda"), CUDA)
    assert str(raised.value) == (
        "engine.device: cuda: asks for 1 x 1 CPU and 1 GPU, each on one node, and the cluster has room for 0 (1 nodes "
        "with 2 CPUs, 0 GPUs in all); its wait_seconds waits for a cluster that starts nodes on demand"
    )
    assert not cluster.asked


def test_an_engine_on_a_cpu_or_on_gpus_that_are_there_waits_for_nothing(cluster):
    await_engine(EngineConfig(), Choice("hash", "float32", "cpu", ""))
    cluster.nodes = GPUS
    await_engine(EngineConfig(device="cuda", tensor_parallel_size=4), CUDA)
    with pytest.raises(EngineError, match="asks for 1 x 1 CPU and 8 GPU, each on one node"):
        await_engine(EngineConfig(device="cuda", tensor_parallel_size=8), CUDA)


def test_a_cluster_that_starts_nodes_is_asked_and_waited_for(cluster, capsys, monkeypatch):
    cluster.later = GPUS
    monkeypatch.setattr(ray_room, "SECONDS_BETWEEN_LINES", 0.0)
    await_room("engine.device: cuda", {"CPU": 1.0, "GPU": 1.0}, 2, 600, EngineError)
    assert (cluster.asked, cluster.removed) == ([{"CPU": 1.0, "GPU": 1.0}] * 2, 1)
    first, *others = capsys.readouterr().err.splitlines()
    assert first.startswith("waiting at most 10m 00s: engine.device: cuda: asks for 2 x 1 CPU and 1 GPU")
    assert others
    assert all(line.startswith("still waiting, for ") for line in others)


def test_waiting_ends_with_its_time_and_takes_the_request_back(cluster):
    with pytest.raises(EngineError, match=r"room for 0 .* after 0s of waiting \(wait_seconds\)"):
        await_room("engine.device: cuda", {"GPU": 1.0}, 1, 0.01, EngineError)
    assert cluster.removed == 1


def test_more_workers_than_the_cluster_can_hold_are_refused(cluster, monkeypatch):
    monkeypatch.setattr(ray_fit.ray_session, "node_cpus", lambda: 2)
    ray_fit.await_workers(TrainConfig(num_workers=2), "cpu")
    with pytest.raises(
        TrainingError, match=r"^train\.num_workers: 3 \(device cpu\): asks for 3 x 1 CPU, each on one"
    ):
        ray_fit.await_workers(TrainConfig(num_workers=3), "cpu")
    with pytest.raises(TrainingError, match="asks for 1 x 1 CPU and 1 GPU"):
        ray_fit.await_workers(TrainConfig(), "cuda")
