"""`ray job submit -- python jobs/score.py` on a head node of its own, started as a user would start one."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.ray


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Return when something listens on a port."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise TimeoutError(f"nothing listens on port {port}")


@pytest.fixture
def head(tmp_path_factory):
    """A head node with a job server; stopped by its own process group."""
    port, dashboard = free_port(), free_port()
    bin_folder = Path(sys.executable).parent
    # Ray keeps its token in HOME and its sessions in RAY_TMPDIR: this cluster has its own of both. The second holds
    # sockets, so its path must be short.
    home, sessions = tmp_path_factory.mktemp("home"), tempfile.mkdtemp(prefix="ray-")
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "RAY_TMPDIR": sessions,
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment.pop("RAY_ADDRESS", None)
    command = [f"{bin_folder}/ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=2"]
    # The cluster of the other tests has an agent, too: each needs ports of its own.
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"]
    command += [
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        "--object-store-memory=200000000",
    ]
    subprocess.run(
        [f"{bin_folder}/ray", "get-auth-token", "--generate"], env=environment, check=True, timeout=60
    )
    with (home / "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        wait_for(dashboard)
        yield f"http://127.0.0.1:{dashboard}", environment, bin_folder
        process.terminate()
        process.wait(timeout=60)
    shutil.rmtree(sessions, ignore_errors=True)


def run_when_ready(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Run a submission; again while the head is up and its job agent is not."""
    for _ in range(20):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        if "No available agent to submit job" not in done.stderr:
            break
        time.sleep(2)
    return done


def test_a_submitted_job_scores_a_corpus(head, tmp_path, tiny_models):
    address, environment, bin_folder = head
    rows = [{"question": f"What is {i}?", "answer": f"It is {i}."} for i in range(30)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    recipe = {
        "corpus": {"paths": str(tmp_path / "rows.parquet")},
        "models": {"base": tiny_models[0], "reference": tiny_models[1]},
        "engine": {"type": "transformers"},
        "select": [{"type": "count", "count": 5}],
        "store": str(tmp_path / "store"),
        "output": str(tmp_path / "runs"),
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    submit = [f"{bin_folder}/ray", "job", "submit", "--address", address, "--working-dir", str(ROOT), "--"]
    job = ["python", "jobs/score.py", str(tmp_path / "recipe.yaml"), "--json"]
    done = run_when_ready([*submit, *job], environment)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"run_id"')))
    assert record["selected"] == 5
    assert pq.read_table(record["coreset"]["parquet"]).num_rows == 5
