"""A run whose driver is killed with SIGKILL, resumed by the same command, ends with the bytes of an undisturbed one."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import yaml
from click.testing import CliRunner

from davir_ray.cli import main
from davir_ray.runs.record import RunRecord
from tests.ray.disturbances import workers

ROOT = Path(__file__).resolve().parents[2]
ROWS = 40
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def command(tmp_path, tiny_models):
    """The command of a run with many small chunks and a slow engine, under a name."""
    rows = [{"question": f"What is {i}?", "answer": f"It is {i}." * (1 + i % 9)} for i in range(ROWS)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")

    def of(name: str) -> list[str]:
        recipe = {
            "corpus": {"paths": str(tmp_path / "rows.parquet")},
            "models": {"base": tiny_models[0], "reference": tiny_models[1]},
            "engine": {"type": "tests.engines:SlowEngine", "num_cpus": 1},
            "store": str(tmp_path / name / "store"),
            "output": str(tmp_path / name / "runs"),
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(recipe))
        code = (
            "from davir_ray.measure.chunks import CHUNK_TOKENS; CHUNK_TOKENS['cpu'] = 300\n"
            "from davir_ray.cli import main; main()"
        )
        return [sys.executable, "-c", code, "score", str(path), "--json"]

    return of


def start(command: list[str]) -> subprocess.Popen:
    variables = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=variables, **pipes)


def finish(command: list[str]) -> RunRecord:
    out, _ = (process := start(command)).communicate(timeout=300)
    assert process.returncode == 0
    return RunRecord.model_validate_json(out.splitlines()[-1])


def parts(folder: Path) -> set[Path]:
    return set(folder.glob("store/measurements/*/*.parquet"))


def bytes_of(record: RunRecord) -> list[str]:
    files = [*Path(record.scored).iterdir(), *Path(record.coreset["parquet"]).iterdir()]
    return sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


def kill_in_the_middle(command: list[str], folder: Path) -> None:
    """Start a run and kill it when it has measured three chunks."""
    process = start(command)
    end = time.monotonic() + 200
    while len(parts(folder)) < 3:
        assert time.monotonic() < end, "nothing was measured"
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while workers("ChunkMeasurer"):  # until Ray notices that their driver is gone
        assert time.monotonic() < end, "the engines outlive their driver"
        time.sleep(0.05)


@pytest.mark.nightly
def test_a_killed_run_goes_on_where_it_stopped(tmp_path, command):
    kill_in_the_middle(command("killed"), tmp_path / "killed")
    done = parts(tmp_path / "killed")
    made = {part: part.stat().st_mtime_ns for part in done}
    resumed, calm = finish(command("killed")), finish(command("calm"))
    assert bytes_of(resumed) == bytes_of(calm)
    assert {part.name for part in parts(tmp_path / "killed")} == {
        part.name for part in parts(tmp_path / "calm")
    }
    assert {part: part.stat().st_mtime_ns for part in done} == made, "what was measured is not measured again"
    assert len(parts(tmp_path / "calm")) > len(done) >= 3


def davir(*words: str) -> str:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_compaction_between_a_stop_and_a_resume_measures_nothing_twice(tmp_path, command):
    kill_in_the_middle(command("packed"), tmp_path / "packed")
    store, output = tmp_path / "packed" / "store", tmp_path / "packed" / "runs"
    (killed,) = json.loads(davir("status", str(output), "--json").splitlines()[-1])["runs"]
    measured = killed["passes"]["base"]["sequences"]
    assert 0 < measured < killed["passes"]["base"]["sequences_planned"] == ROWS
    assert not killed["finished"]
    davir("store", "compact", str(store))
    assert parts(tmp_path / "packed") == set()
    *_, words = killed["resume"].split("davir ")
    record = finish([sys.executable, "-m", "davir_ray.cli", *words.split(), "--json"])
    assert (record.run_id, record.rows) == (killed["run_id"], ROWS)
    tables = [pq.read_table(part) for part in store.glob("measurements/*/**/*.parquet")]
    every = pa.concat_tables([table.replace_schema_metadata() for table in tables])["sequence_id"].to_pylist()
    assert len(every) == 2 * ROWS, "each sequence was measured once under each of two models"
    assert "finished" in davir("status", record.run_dir)
    assert davir("store", "verify", str(store)).startswith("sound")
