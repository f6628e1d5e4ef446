"""Kinds of measurement on real Ray: one of a single file goes through all that serves kinds, and tokens meet sums."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import yaml

from davir_ray import pipeline
from davir_ray.drift.ray_drift import measure_drift
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.hash_engine import HashEngine
from davir_ray.planning.ray_plan import preview
from davir_ray.recipe import parse_recipe
from davir_ray.runs.history import past_runs
from davir_ray.runs.record import RunRecord

ROOT = Path(__file__).resolve().parents[2]
ROWS = 40
CODE = (
    "from davir_ray.measure.chunks import CHUNK_TOKENS; CHUNK_TOKENS['cpu'] = 300\n"
    "from davir_ray.cli import main; main()"
)
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def tree(folder: Path, models: tuple[str, str], **changes) -> dict:
    return {
        "corpus": {"paths": f"{folder}/corpus/*.parquet"},
        "models": {"base": models[0], "reference": models[1]},
        "engine": {"type": "hash", "num_cpus": 1},
        "store": str(folder / "store"),
        "output": str(folder / "runs"),
    } | changes


def write_corpus(folder: Path, name: str, numbers: range) -> None:
    (folder / "corpus").mkdir(exist_ok=True)
    rows = [{"question": f"What is {i}?", "answer": f"It is {i}." * (1 + i % 9)} for i in numbers]
    pq.write_table(pa.Table.from_pylist(rows), folder / "corpus" / f"{name}.parquet")


def kill_while_measuring(folder: Path, recipe: dict) -> int:
    """Start a run of the recipe, kill its driver with SIGKILL, and return how many parts it had written."""
    (folder / "test.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-c", CODE, "score", str(folder / "test.yaml")]
    variables = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=ROOT, env=variables, **quiet)
    end = time.monotonic() + 300
    while len(parts := list(folder.glob("store/measurements/*/*.parquet"))) < 3:
        assert time.monotonic() < end, "nothing was measured"
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.05)
    process.kill()
    process.wait()
    return len(parts)


def plain_hardness(prepared: Path, base: str) -> dict[bytes, int]:
    """Count the tokens above 2 nats of each example without Ray, store or kinds."""
    found = {}
    for part in prepared.glob("tokens/*.parquet"):
        ids = pq.read_table(prepared / "examples" / part.name)["example_id"].to_pylist()
        for row in pq.read_table(part).to_pylist():
            sequence = TokenSequence(np.array(row["ids"], np.int32), np.array(row["scored"]))
            (logprobs,) = HashEngine(base).logprobs([sequence])
            found[ids[row["example"]]] = int((logprobs < -2).sum())
    return found


def test_a_kind_in_one_file_is_planned_measured_killed_resumed_scored_and_compared(tmp_path, tiny_models):
    write_corpus(tmp_path, "a", range(ROWS))
    asked = tree(
        tmp_path,
        tiny_models,
        engine={"type": "tests.engines:SlowEngine", "num_cpus": 1},
        score={"name": "tests.hard_tokens:HARDNESS"},
    )
    recipe = parse_recipe(asked, "test")
    assert preview(recipe, "test").measured == {"base-hard_tokens": ROWS}
    killed = kill_while_measuring(tmp_path, asked)
    left = preview(recipe, "test").measured["base-hard_tokens"]
    assert 0 < left < ROWS
    record = pipeline.score(recipe, "test")
    assert record.measured == {"base-hard_tokens": ROWS}
    assert len(list(tmp_path.glob("store/measurements/*/*.parquet"))) > killed
    scored = {row["example_id"]: row["score"] for row in pq.read_table(record.scored).to_pylist()}
    (prepared,) = tmp_path.glob("store/prepared/*")
    assert scored == plain_hardness(prepared, tiny_models[0])
    write_corpus(tmp_path, "b", range(ROWS, ROWS + 3))
    again = pipeline.score(recipe, "test")
    assert again.measured == {"base-hard_tokens": 3}
    assert again.reused == {"base-hard_tokens": ROWS}
    drift = measure_drift(*past_runs(str(tmp_path / "runs"), "test"))
    assert drift.rows.model_dump() == {"before": ROWS, "after": ROWS + 3, "both": ROWS}
    assert drift.rank_correlation == pytest.approx(1)


def test_tokens_meet_a_need_for_sums_and_are_measured_once(tmp_path, tiny_models):
    write_corpus(tmp_path, "a", range(ROWS))

    def score(name: str, **changes) -> RunRecord:
        return pipeline.score(parse_recipe(tree(tmp_path, tiny_models, **changes), "test"), name)

    sums = score("sums")
    assert sums.measured == {"base": ROWS, "reference": ROWS}
    kept = score("kept", measure={"kind": "token_loss"})
    assert kept.measured == {"base-token_loss": ROWS, "reference-token_loss": ROWS}
    assert pq.read_table(kept.scored) == pq.read_table(sums.scored)
    again = score("again", measure={"kind": "token_loss"}, select=[{"type": "count", "count": 3}])
    assert again.reused == {"base-token_loss": ROWS, "reference-token_loss": ROWS}
    write_corpus(tmp_path, "b", range(ROWS, ROWS + 3))
    ranks = score("ranks", score={"name": "rsr", "order": "lowest"})
    assert ranks.measured == {"base-token_rank": ROWS + 3}
    plain = score("plain", score={"name": "base_loss"})
    assert (plain.measured, plain.reused) == ({"base": 0}, {"base": ROWS + 3})


def test_s_ifd_and_rsr_rank_a_corpus_that_lies_in_many_splits_as_one(tmp_path, tiny_models, monkeypatch):
    write_corpus(tmp_path, "a", range(ROWS))

    def scores(name: str) -> list:
        record = pipeline.score(parse_recipe(tree(tmp_path, tiny_models, score={"name": name}), "test"), name)
        assert record.status == {"ok": ROWS}
        return pq.read_table(record.scored, columns=["example_id", "score", "rank"]).to_pylist()

    one = {name: scores(name) for name in ("s_ifd", "rsr")}
    monkeypatch.setattr("davir_ray.cluster.ray_exchange.ROWS_PER_TASK", 7)
    monkeypatch.setattr("davir_ray.cluster.ray_exchange.ROWS_PER_PIECE", 1)
    for start in range(0, ROWS, 5):
        write_corpus(tmp_path, f"s{start:02d}", range(start, start + 5))
    (tmp_path / "corpus" / "a.parquet").unlink()
    assert {name: scores(name) for name in one} == one
