"""A training whose store, rows, checkpoints and model all lie on S3, as moto serves it on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from davir_ray import storage
from davir_ray.config import ModelsConfig
from davir_ray.models.resolve import resolve_all
from davir_ray.runs.record import TrainingRecord
from davir_ray.runs.run import Run
from davir_ray.storage.filesystems import filesystem
from davir_ray.train.metrics import read_metrics
from tests import trainings
from tests.conftest import ROOT

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

TRAIN = {"max_steps": 4, "save_steps": 1, "learning_rate": 3e-3, "zero_stage": 2}


@pytest.fixture(scope="module")
def record(bucket, tiny_models, tmp_path_factory) -> TrainingRecord:
    """Train by the command line: workers get the keys from the driver's environment."""
    folder = tmp_path_factory.mktemp("s3")
    corpus = trainings.write_rows(folder / "rows.parquet", 16)
    recipe = trainings.recipe(bucket, tiny_models[0], corpus, TRAIN | {"corpus": {"paths": corpus}})
    (folder / "test.json").write_text(recipe.model_dump_json(exclude_none=True))
    command = [sys.executable, "-m", "davir_ray.cli", "train", "--json", str(folder / "test.json")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return TrainingRecord.model_validate_json(done.stdout.splitlines()[-1])


def test_a_finished_run_on_s3_holds_the_model_and_nothing_that_only_training_needs(record, bucket):
    assert record.run_dir.startswith(f"{bucket}/runs/test-sft-")
    assert len(trainings.losses(record)) == 4
    fs, path = filesystem(record.run_dir)
    tops = {file.removeprefix(f"{path}/").split("/")[0] for file in fs.find(path)}
    assert tops == {"training.json", "record.json", "events.jsonl", "metrics.jsonl", "model", "lease"}
    assert Run.from_folder(record.run_dir).record(TrainingRecord).tree() == record.tree()
    made = json.loads(storage.read_bytes(storage.join(record.model, "davir_training.json")))
    assert made["run_id"] == record.run_id


def test_the_model_on_s3_is_used_by_its_uri(record, tiny_models, tmp_path):
    models = ModelsConfig(base=tiny_models[0], reference=record.model)
    found = resolve_all(models, cache_dir=tmp_path)
    base, reference = found["base"][0], found["reference"][0]
    assert Path(reference.model_path).is_relative_to(tmp_path)
    assert base.identity != reference.identity
    tokenizer = AutoTokenizer.from_pretrained(reference.tokenizer_path)
    ids = tokenizer("It is 3.It is 3.", return_tensors="pt")["input_ids"]
    before, after = (
        AutoModelForCausalLM.from_pretrained(one.model_path)(input_ids=ids, labels=ids).loss.item()
        for one in (base, reference)
    )
    assert after < before - 0.1, "it has learnt what rows say"
    first, last = (read_metrics(record.run_dir)[at]["loss"] for at in (0, 3))
    assert last < first
