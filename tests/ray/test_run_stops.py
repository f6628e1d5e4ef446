"""`davir run` on the quickstart's corpus, killed with SIGKILL in every stage and resumed, ends like one left alone."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from davir_ray.runs.record import JobRecord, TrainingRecord
from jobs.prepare_quickstart.corpus import write_corpus

ROOT = Path(__file__).resolve().parents[2]
STAGES = {
    "reference": "runs/*-reference-*/checkpoints/checkpoint_*",
    "measuring": "store/measurements/*/*.parquet",
    "training": "runs/*-sft-*/checkpoints/checkpoint_*",
}
"""What lies on disk once a stage is under way."""
pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart")
    write_corpus(folder / "corpus", folder / "held_out", seed=0)
    return folder


def command(folder: Path, corpus: Path, base: str) -> list[str]:
    training = {"learning_rate": 1e-3, "num_train_epochs": 2, "save_steps": 2, "num_cpus_per_worker": 1}
    training["train_sampling_strategy"] = "group_by_length"
    recipe = {
        "corpus": {"paths": f"{corpus}/corpus/*.parquet"},
        "models": {"base": base},
        "engine": {"type": "transformers", "num_cpus": 1},
        "reference": {"train": training},
        "select": [{"type": "fraction", "fraction": 0.5}],
        "train": training | {"eval_corpus": {"paths": f"{corpus}/held_out/*.parquet"}},
        "store": str(folder / "store"),
        "output": str(folder / "runs"),
    }
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return [sys.executable, "-m", "davir_ray.cli", "run", str(folder / "recipe.yaml"), "--json"]


def start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def kill_in(process: subprocess.Popen, folder: Path, pattern: str) -> None:
    end = time.monotonic() + 400
    try:
        while not list(folder.glob(pattern)):
            assert process.poll() is None, f"the run ended before there was {pattern}"
            assert time.monotonic() < end, f"there never was {pattern}"
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def finish(command: list[str]) -> JobRecord:
    out, _ = (process := start(command)).communicate(timeout=400)
    assert process.returncode == 0
    return JobRecord.model_validate_json(out.splitlines()[-1])


def reference(record: JobRecord) -> TrainingRecord:
    return record.reference.trainings[0]


def digests(folder: str) -> list[str]:
    return sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in Path(folder).iterdir())


def test_a_run_killed_in_every_stage_ends_with_the_same_core_set_and_model(tmp_path, corpus, tiny_models):
    killed = tmp_path / "killed"
    for stage, pattern in STAGES.items():
        assert not list(killed.glob(pattern)), f"{stage} began before its turn"
        kill_in(start(command(killed, corpus, tiny_models[0])), killed, pattern)
    resumed = finish(command(killed, corpus, tiny_models[0]))
    calm = finish(command(tmp_path / "calm", corpus, tiny_models[0]))
    assert resumed.selected == calm.selected > 0
    assert digests(resumed.coreset["parquet"]) == digests(calm.coreset["parquet"])
    for one, other in ((resumed.train, calm.train), (reference(resumed), reference(calm))):
        assert one.steps == other.steps
    weights = [Path(one.train.model) / "model.safetensors" for one in (resumed, calm)]
    assert len({hashlib.sha256(file.read_bytes()).hexdigest() for file in weights}) == 1
