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
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROWS = 40
pytestmark = pytest.mark.ray


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
            "from davir_ray.logprobs.chunks import CHUNK_TOKENS; CHUNK_TOKENS['cpu'] = 300\n"
            "from davir_ray.cli import main; main()"
        )
        return [sys.executable, "-c", code, "score", str(path), "--json"]

    return of


def start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finish(command: list[str]) -> dict:
    out, _ = (process := start(command)).communicate(timeout=300)
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


def parts(folder: Path) -> set[Path]:
    return set(folder.glob("store/measurements/*/*.parquet"))


def bytes_of(record: dict) -> list[str]:
    files = [*Path(record["scored"]).iterdir(), *Path(record["coreset"]["parquet"]).iterdir()]
    return sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, command):
    process = start(command("killed"))
    end = time.monotonic() + 200
    while len(parts(tmp_path / "killed")) < 3:
        assert time.monotonic() < end, "nothing was measured"
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)  # Ray's processes notice that their driver is gone
    done = parts(tmp_path / "killed")
    made = {part: part.stat().st_mtime_ns for part in done}
    resumed, calm = finish(command("killed")), finish(command("calm"))
    assert bytes_of(resumed) == bytes_of(calm)
    assert {part.name for part in parts(tmp_path / "killed")} == {
        part.name for part in parts(tmp_path / "calm")
    }
    assert {part: part.stat().st_mtime_ns for part in done} == made, "what was measured is not measured again"
    assert len(parts(tmp_path / "calm")) > len(done) >= 3
