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

GUILTY = 2
STALLING = {"stall_seconds": 1.0}
ROWS = [
    {"question": f"Say {i}.", "answer": f"{i} is KILL" if i == GUILTY else f"{i} is fine"} for i in range(4)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a corpus, and with the store and the runs of all these tests: engines share no measurement."""
    folder = tmp_path_factory.mktemp("faults")
    for name, rows in (("all", ROWS), ("two", ROWS[GUILTY - 1 : GUILTY + 1])):
        (folder / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows), folder / name / "rows.parquet")
    return folder


def recipe(place, models, engine: str, corpus="all", watched=None, **changes):
    base, reference = models
    tree = {
        "corpus": {"paths": str(place / corpus)},
        "models": {"base": base, "reference": reference},
        "engine": {"type": f"tests.engines:{engine}", "num_cpus": 1} | (watched or {}),
        "store": str(place / "store"),
        "output": str(place / "runs"),
    }
    return parse_recipe(tree | changes, engine)


def chosen_again(place, models, engine: str) -> RunRecord:
    select = [{"type": "count", "count": 3}]
    return pipeline.score(recipe(place, models, engine, select=select), engine, may_measure=False)


def run(place, models, engine: str, **changes):
    """Return the record and the scored rows, but for their file."""
    record = pipeline.score(recipe(place, models, engine, **changes), engine)
    return record, pq.read_table(record.scored).drop_columns("file").to_pylist()


@pytest.fixture(scope="module")
def calm(place, tiny_models, ray_cluster):
    """The rows as an engine without faults scores them."""
    return run(place, tiny_models, "PathHash")[1]


@pytest.mark.parametrize(
    ("engine", "reason", "retried"),
    [("LethalEngine", "the engine died", 4 + 4 + 1), ("FailingEngine", "cannot stand this batch", 0)],
)
def test_only_the_guilty_row_is_lost(place, tiny_models, calm, engine, reason, retried):
    record, rows = run(place, tiny_models, engine)
    assert record.status == {"ok": 3, "engine_error": 1}
    halved = 4 + 2
    assert record.measured_again == {"base": retried + halved, "reference": 0}
    (failed,) = (row for row in rows if row["status"] == "engine_error")
    assert failed["reason"].startswith("base: ")
    assert reason in failed["reason"]
    # What is known to fail is not tried again: another choice touches no model.
    again = chosen_again(place, tiny_models, engine)
    assert (again.status, again.measured) == (record.status, {"base": 0, "reference": 0})
    expected = {row["example_id"]: row["score"] for row in calm if row["example_id"] != failed["example_id"]}
    assert {row["example_id"]: row["score"] for row in rows if row is not failed} == expected


def test_a_row_that_stalls_every_engine_is_lost_alone_and_says_so(place, tiny_models, calm):
    _, rows = run(place, tiny_models, "StallingEngine", corpus="two", watched=STALLING)
    by_status = {row["status"]: row for row in rows}
    assert by_status["engine_error"]["reason"] == (
        "base: the engine stalled: no answer within 2 seconds, each time it measured this sequence"
    )
    expected = {row["example_id"]: row["score"] for row in calm}
    measured = {row["example_id"]: row["score"] for row in rows if row["status"] == "ok"}
    assert len(measured) == 1
    assert measured.items() <= expected.items()


@pytest.mark.parametrize(("engine", "watched"), [("MortalEngine", None), ("StuckOnceEngine", STALLING)])
def test_an_engine_that_falls_by_chance_changes_nothing(place, tiny_models, calm, engine, watched):
    record, rows = run(place, tiny_models, engine, watched=watched)
    assert record.status == {"ok": 4}
    assert record.measured_again == {"base": 4, "reference": 4}, "the chunk that each engine fell with"
    assert rows == calm


def test_an_engine_that_fails_on_everything_stops_the_run(place, tiny_models):
    with pytest.raises(
        EngineError, match="fails on all 4 sequences of a chunk: RuntimeError: no good at all"
    ):
        run(place, tiny_models, "UselessEngine")


def test_an_engine_that_dies_while_it_is_loaded_is_given_up(place, tiny_models):
    with pytest.raises(EngineError, match="died or stalled 3 times while it loaded the model"):
        run(place, tiny_models, "DiesWhileLoading")


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
    place, tmp_path, tiny_models, calm, engine, score, line, where, code
):
    asked = recipe(place, tiny_models, engine, score={"name": score})
    (tmp_path / "recipe.json").write_text(asked.model_dump_json(exclude_none=True))
    told = CliRunner().invoke(main, ["score", str(tmp_path / "recipe.json")])
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
