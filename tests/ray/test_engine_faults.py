"""Engines that die, stall or fail: the run goes on, the guilty rows are marked, the others are as ever."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from davir_ray import pipeline
from davir_ray.cli import main
from davir_ray.errors import EngineError
from davir_ray.recipe import parse_recipe
from davir_ray.runs.record import RunRecord

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

GUILTY = 7
STALLING = {"stall_seconds": 1.0}
ROWS = [
    {"question": f"Say {i}.", "answer": f"{i} is KILL" if i == GUILTY else f"{i} is fine"} for i in range(12)
]


def recipe(tmp_path, models, engine: str, name: str, rows=ROWS, watched=None, **changes):
    base, reference = models
    if not (tmp_path / "corpus").exists():
        (tmp_path / "corpus").mkdir()
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "corpus" / "rows.parquet")
    tree = {
        "corpus": {"paths": str(tmp_path / "corpus")},
        "models": {"base": base, "reference": reference},
        "engine": {"type": engine, "num_cpus": 1} | (watched or {}),
        "store": str(tmp_path / name / "store"),
        "output": str(tmp_path / name / "runs"),
    }
    return parse_recipe(tree | changes, name)


def chosen_again(tmp_path, models, engine: str, name: str) -> RunRecord:
    select = [{"type": "count", "count": 3}]
    return pipeline.score(recipe(tmp_path, models, engine, name, select=select), name, may_measure=False)


def run(tmp_path, models, engine: str, name: str, **changes):
    """Return the record and the scored rows, but for their file: each test has a folder of its own."""
    record = pipeline.score(recipe(tmp_path, models, engine, name, **changes), name)
    return record, pq.read_table(record.scored).drop_columns("file").to_pylist()


@pytest.fixture(scope="module")
def calm(tmp_path_factory, tiny_models, ray_cluster):
    """The rows as an engine without faults scores them."""
    return run(tmp_path_factory.mktemp("calm"), tiny_models, "tests.engines:PathHash", "calm")[1]


@pytest.mark.parametrize(
    ("engine", "reason", "retried"),
    [("LethalEngine", "the engine died", 12 + 12 + 1), ("FailingEngine", "cannot stand this batch", 0)],
)
def test_only_the_guilty_row_is_lost(tmp_path, tiny_models, calm, engine, reason, retried):
    record, rows = run(tmp_path, tiny_models, f"tests.engines:{engine}", engine)
    assert record.status == {"ok": 11, "engine_error": 1}
    halved = 12 + 6 + 3
    assert record.measured_again in [{"base": retried + halved + last, "reference": 0} for last in (0, 2)], (
        "as thirds of three are one and two"
    )
    (failed,) = (row for row in rows if row["status"] == "engine_error")
    assert failed["reason"].startswith("base: ")
    assert reason in failed["reason"]
    # What is known to fail is not tried again: another choice touches no model.
    again = chosen_again(tmp_path, tiny_models, f"tests.engines:{engine}", engine)
    assert (again.status, again.measured) == (record.status, {"base": 0, "reference": 0})
    expected = {row["example_id"]: row["score"] for row in calm if row["example_id"] != failed["example_id"]}
    assert {row["example_id"]: row["score"] for row in rows if row is not failed} == expected


def test_a_row_that_stalls_every_engine_is_lost_alone_and_says_so(tmp_path, tiny_models, calm):
    two = ROWS[GUILTY - 1 : GUILTY + 1]
    engine = "tests.engines:StallingEngine"
    _, rows = run(tmp_path, tiny_models, engine, "stalling", rows=two, watched=STALLING)
    by_status = {row["status"]: row for row in rows}
    assert by_status["engine_error"]["reason"] == (
        "base: the engine stalled: no answer within 2 seconds, each time it measured this sequence"
    )
    expected = {row["example_id"]: row["score"] for row in calm}
    measured = {row["example_id"]: row["score"] for row in rows if row["status"] == "ok"}
    assert len(measured) == 1
    assert measured.items() <= expected.items()


@pytest.mark.parametrize(("engine", "watched"), [("MortalEngine", None), ("StuckOnceEngine", STALLING)])
def test_an_engine_that_falls_by_chance_changes_nothing(tmp_path, tiny_models, calm, engine, watched):
    record, rows = run(tmp_path, tiny_models, f"tests.engines:{engine}", engine, watched=watched)
    assert record.status == {"ok": 12}
    assert record.measured_again == {"base": 12, "reference": 12}, "the chunk that each engine fell with"
    assert rows == calm


def test_an_engine_that_fails_on_everything_stops_the_run(tmp_path, tiny_models):
    with pytest.raises(
        EngineError, match="fails on all 12 sequences of a chunk: RuntimeError: no good at all"
    ):
        run(tmp_path, tiny_models, "tests.engines:UselessEngine", "useless")


def test_an_engine_that_dies_while_it_is_loaded_is_given_up(tmp_path, tiny_models):
    with pytest.raises(EngineError, match="died or stalled 3 times while it loaded the model"):
        run(tmp_path, tiny_models, "tests.engines:DiesWhileLoading", "unborn")


@pytest.mark.parametrize(
    ("engine", "score", "line", "where", "code"),
    [
        ("FailsToLoad", "davir", "LookupError: no such weights", "engines.py", 5),
        (
            "PathHash",
            "tests.engines:MISTAKEN",
            "ZeroDivisionError: integer division or modulo by zero",
            "divided",
            1,
        ),
    ],
)
def test_what_nobody_foresaw_in_a_worker_is_told_in_one_line(
    tmp_path, tiny_models, engine, score, line, where, code
):
    name = score.partition(":")[0]
    asked = recipe(
        tmp_path, tiny_models, f"tests.engines:{engine}", name, rows=ROWS[:3], score={"name": score}
    )
    (tmp_path / "recipe.yaml").write_text(asked.model_dump_json(exclude_unset=True))
    told = CliRunner().invoke(main, ["score", str(tmp_path / "recipe.yaml")])
    last = told.output.splitlines()[-1]
    assert last.startswith(f"error: unexpected {line}; the full traceback is in ")
    assert (told.exit_code, "Traceback" in told.output, "ray.exceptions" in told.output) == (
        code,
        False,
        False,
    )
    kept = Path(last.rpartition(" ")[2])
    assert where in kept.read_text()
    kept.unlink()
