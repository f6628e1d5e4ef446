"""Engines that die or fail: the run goes on, the guilty rows are marked, the others are as if nothing had been."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from davir_ray import pipeline
from davir_ray.config import parse_recipe

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

GUILTY = {7, 23}
ROWS = [
    {"question": f"Say {i}.", "answer": f"{i} is KILL" if i in GUILTY else f"{i} is fine"} for i in range(40)
]


def run(tmp_path, models, engine: str, name: str, monkeypatch):
    monkeypatch.setattr("davir_ray.logprobs.ray_measure.CPU_CHUNK_TOKENS", 400)
    base, reference = models
    if not (tmp_path / "corpus").exists():
        (tmp_path / "corpus").mkdir()
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "corpus" / "rows.parquet")
    tree = {
        "corpus": {"paths": str(tmp_path / "corpus")},
        "models": {"base": base, "reference": reference},
        "engine": {"type": engine, "num_cpus": 1},
        "store": str(tmp_path / name / "store"),
        "output": str(tmp_path / name / "runs"),
    }
    record = pipeline.score(parse_recipe(tree, name), name)
    return record, pq.read_table(record["scored"]).to_pylist()


@pytest.mark.parametrize("engine", ["LethalEngine", "FailingEngine"])
def test_only_the_guilty_rows_are_lost(tmp_path, tiny_models, monkeypatch, engine):
    record, rows = run(tmp_path, tiny_models, f"tests.engines:{engine}", engine, monkeypatch)
    _, calm = run(tmp_path, tiny_models, "hash", "calm", monkeypatch)
    failed = {row["example_id"] for row in rows if row["status"] == "engine_error"}
    assert record["status"] == {"ok": 38, "engine_error": 2}
    assert all("engine died" in r["reason"] or "cannot stand" in r["reason"] for r in rows if r["example_id"] in failed)
    losses = {row["example_id"]: (row["base_loss"], row["score"]) for row in calm}
    assert {r["example_id"]: (r["base_loss"], r["score"]) for r in rows if r["example_id"] not in failed} == {
        key: value for key, value in losses.items() if key not in failed
    }


def test_an_engine_that_dies_by_chance_changes_nothing(tmp_path, tiny_models, monkeypatch):
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    (tmp_path / "where").write_text(str(deaths))
    monkeypatch.setenv("DAVIR_TEST_DEATHS", str(deaths))
    record, rows = run(tmp_path, tiny_models, "tests.engines:MortalEngine", "mortal", monkeypatch)
    _, calm = run(tmp_path, tiny_models, "hash", "calm", monkeypatch)
    assert len(list(deaths.iterdir())) == 2
    assert record["status"] == {"ok": 40}
    assert rows == calm
