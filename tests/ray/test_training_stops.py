"""A training that loses a worker, its driver or a node goes on from its last checkpoint, and ends like a calm one.

Two workers share ZeRO-2's optimiser, each with a checkpoint of its own half. One thread each: sums are the same bits.
"""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from davir_ray.runs.record import TrainingRecord
from davir_ray.train import steps as training
from tests import trainings
from tests.conftest import ROOT
from tests.ray.disturbances import checkpoints, disturbed, train_workers, wait_for_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

STEPS = 12
SAVED = 4
"""Ray Train takes one checkpoint every two seconds, so that there is time to strike; an epoch has three steps, so that
all checkpoints lie within a later one."""
TRAIN = {
    "max_steps": STEPS,
    "save_steps": SAVED,
    "eval_steps": 4,
    "per_device_train_batch_size": 2,
    "num_workers": 2,
    "zero_stage": 2,
    "learning_rate": 3e-3,
    "train_sampling_strategy": "group_by_length",
}


@pytest.fixture(scope="module")
def recipe_in(tmp_path_factory, tiny_models):
    """Make the same recipe in a folder of its own for each name."""
    root = tmp_path_factory.mktemp("stops")
    corpus = trainings.write_rows(root / "rows.parquet", 10)
    held_out = trainings.write_pairs(root / "held_out.parquet", 6)
    train = TRAIN | {"corpus": {"paths": corpus}, "eval_corpus": {"paths": held_out}}

    def make(name: str):
        (root / name).mkdir(exist_ok=True)
        recipe = trainings.recipe(root / name, tiny_models[0], corpus, train)
        (root / name / "test.json").write_text(recipe.model_dump_json(exclude_none=True))
        return recipe, root / name

    return make


def command(*words: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    log = open(Path(words[-1]).with_suffix(".log"), "a")  # noqa: SIM115
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )


def finish(process: subprocess.Popen, folder: Path) -> TrainingRecord:
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, (folder / "test.log").read_text()[-3000:]
    return TrainingRecord.model_validate_json(out.splitlines()[-1])


def weights(record: TrainingRecord) -> str:
    (file,) = Path(record.model).glob("*.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def calm(recipe_in, ray_cluster):
    """The undisturbed training."""
    trainings.one_thread()
    record = training.train(recipe_in("calm")[0], "test")
    assert trainings.last_start(record) == 0
    return record


def check_same(record: TrainingRecord, calm: TrainingRecord) -> None:
    """Check that a disturbed training ended like the calm one, and did not do it all over again."""
    assert trainings.curve(record) == trainings.curve(calm)
    assert len(trainings.losses(record)) == STEPS
    assert weights(record) == weights(calm)
    assert record.eval.before["loss"] > record.eval.after["loss"]
    assert trainings.last_start(record) in range(SAVED, STEPS, SAVED), "it did not go on from a checkpoint"
    assert not checkpoints(Path(record.run_dir).parents[1]), "a finished run keeps no checkpoints"


def test_a_killed_worker_is_replaced(recipe_in, calm):
    recipe, folder = recipe_in("worker")
    killed = []

    def kill() -> None:
        first, _ = train_workers()
        first.send_signal(signal.SIGKILL)
        killed.append(first.pid)

    with disturbed(folder, kill):
        record = training.train(recipe, "test")
    assert len(killed) == 1
    check_same(record, calm)


@pytest.mark.nightly
def test_a_killed_driver_is_resumed_by_the_same_command(recipe_in, calm):
    _, folder = recipe_in("driver")
    words = ("davir_ray.cli", "train", "--json", str(folder / "test.json"))
    process = command(*words)
    wait_for_checkpoint(folder, alive=lambda: process.poll() is None)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(1)  # Ray's processes notice that their driver is gone
    assert not list(folder.glob("runs/*/record.json"))
    check_same(finish(command(*words), folder), calm)


@pytest.mark.nightly
def test_a_driver_that_is_interrupted_says_that_the_same_command_goes_on(recipe_in):
    _, folder = recipe_in("interrupted")
    process = command("davir_ray.cli", "train", str(folder / "test.json"))
    wait_for_checkpoint(folder, alive=lambda: process.poll() is None)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=120)[0] == ""
    assert (folder / "test.log").read_text().splitlines()[-1] == "interrupted; the same command goes on"
    assert process.returncode == 130


@pytest.mark.nightly
def test_a_lost_node_is_replaced_by_another(recipe_in, calm):
    _, folder = recipe_in("node")
    record = finish(command("tests.ray.lost_node", str(folder / "test.json")), folder)
    check_same(record, calm)
