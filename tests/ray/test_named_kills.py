"""A run is killed at moments that have names, and ends with the bytes of one left alone, with little done again.

`make test-nightly` strikes at random moments, and at more victims (test_kill_matrix.py).
"""

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import ray

from davir_ray.storage.sealed import read_sealed
from tests.ray.kill_rounds import ROOT, Outcome, command_of, environment, write_corpus
from tests.ray.test_kill_matrix import FILES, ROWS_PER_FILE, assert_undisturbed

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def raylets(process: psutil.Process) -> list[psutil.Process]:
    """Find the processes that stand for nodes, among the descendants of a process."""
    return [child for child in process.children(recursive=True) if child.name() == "raylet"]


@pytest.fixture
def node(ray_cluster) -> Iterator[psutil.Process]:
    """A second node for the cluster of all tests: its raylet."""
    with ExitStack() as probes:
        port = probes.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
    address = ray.get_runtime_context().gcs_address
    ray_command = str(Path(sys.executable).with_name("ray"))
    command = [ray_command, "start", f"--address={address}", "--num-cpus=1", "--block"]
    started = psutil.Popen(
        [*command, f"--dashboard-agent-listen-port={port}"], env=environment(), stdout=subprocess.DEVNULL
    )
    alive = len(ray.nodes())
    while len(ray.nodes()) == alive or not raylets(started):
        assert started.poll() is None
    yield raylets(started)[0]
    started.terminate()
    started.wait()


class Place:
    """A folder with one run, which is started as often as a test strikes its driver."""

    def __init__(self, folder: Path, corpus: Path, models: tuple[str, str], engine: str) -> None:
        for name, model in zip(("base", "reference"), models, strict=True):
            shutil.copytree(model, folder / "models" / name)
        self.folder, self.words = folder, command_of(folder, corpus, engine)[3:]
        self.environment = environment() | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}

    def start(self, **strikes: tuple[str, int]) -> subprocess.CompletedProcess[str]:
        """Start the run; check that it was struck as asked."""
        named = {moment.replace("_", ":"): strike for moment, strike in strikes.items()}
        command = [sys.executable, "-m", "tests.ray.struck_driver", json.dumps(named), *self.words]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=300
        )
        for moment, (victim, _) in named.items():
            assert f"struck: {victim} at {moment}\n" in done.stderr, done.stderr[-3000:]
        return done

    def finish(self) -> Outcome:
        """Start the run once more, to its end."""
        done = self.start()
        assert done.returncode == 0, done.stderr[-3000:]
        return Outcome(self.folder, {"record": json.loads(done.stdout.splitlines()[-1])})


def test_a_run_that_is_struck_at_four_moments_ends_like_one_left_alone(tmp_path, tiny_models, node):
    corpus = write_corpus(tmp_path / "corpus", FILES, ROWS_PER_FILE)
    (first,) = set(raylets(psutil.Process())) - {node}
    place = Place(tmp_path / "struck", corpus, tiny_models, "NotedHash")
    killed = place.start(chunk_2=("worker", first.pid), chunk_5=("driver", 0))
    assert killed.returncode == -signal.SIGKILL
    killed = place.start(rank=("node", node.pid), record=("driver", 0))
    assert killed.returncode == -signal.SIGKILL
    struck = place.finish()
    calm = Place(tmp_path / "calm", corpus, tiny_models, "QuickHash").finish()
    assert_undisturbed(struck, calm)
    assert struck.again() <= 2, "what two engines had in hand when the driver was killed"
    again = read_sealed(str(struck.run / "record.json"))["measured_again"]  # the last start did nothing
    assert sum(again.values()) >= sum(len(sequences) for _, *sequences in struck.repeated())
