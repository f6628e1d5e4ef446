import json
import os
import re
from time import time

import pyarrow as pa
import pytest
from click.testing import CliRunner

from davir_ray import storage
from davir_ray.cli import main
from davir_ray.cli.status import PassStatus, status, status_lines, statuses
from davir_ray.cli.verbs import _load
from davir_ray.errors import RecipeError
from davir_ray.recipe import parse_recipe
from davir_ray.runs.record import RunRecord
from davir_ray.runs.run import Run, run_id_of
from davir_ray.store.compaction import compact
from davir_ray.store.measurements import part_name
from davir_ray.train.metrics import write_metrics
from tests.measured import FINGERPRINTS, keys, store_with
from tests.records import run_record, training_record

CHUNKS = {"abc": 300, "de": 200, "fgh": 300, "i": 100}
"""The plan: the sequences of each chunk, and its tokens."""


def recipe_for(tmp_path) -> dict[str, object]:
    """Return a recipe as a file holds it."""
    tree = {"corpus": {"paths": "rows.parquet"}, "models": {"base": "b", "reference": "r"}}
    return tree | {"output": str(tmp_path / "runs"), "store": str(tmp_path / "store")}


def begin(tmp_path, name: str = "name-1") -> Run:
    return Run.begin(parse_recipe(recipe_for(tmp_path), "r"), name)


def settled(sequences: int, sequences_planned: int, tokens: int, tokens_planned: int) -> PassStatus:
    """A pass that is not under way."""
    return PassStatus(
        sequences=sequences,
        sequences_planned=sequences_planned,
        tokens=tokens,
        tokens_planned=tokens_planned,
    )


def store_of(tmp_path):
    return store_with(tmp_path / "store" / "measurements" / FINGERPRINTS[0])


def plan(tmp_path, run: Run, settled: tuple[str, ...], *, seconds_ago: float) -> None:
    """Write down a pass that began a while ago, when these chunks were settled."""
    names = [part_name(keys(*letters)) for letters in CHUNKS]
    table = {"name": names, "sequences": [len(one) for one in CHUNKS], "tokens": list(CHUNKS.values())}
    storage.write_table(storage.join(run.folder, "work", "base", "plan.parquet"), pa.table(table))
    left = sum(tokens for letters, tokens in CHUNKS.items() if letters not in settled)
    run.event("prepare", splits=1)
    counts = {"sequences": 9, "tokens": 900, "tokens_left": left, "anew": True, "retried_sequences": 0}
    run.event("measure", role="base", store=store_of(tmp_path).folder, **counts)
    run.events[-1]["time"] -= seconds_ago
    run.events[-2]["time"] -= seconds_ago
    text = "".join(json.dumps(event) + "\n" for event in run.events)
    storage.write_atomic(storage.join(run.folder, "events.jsonl"), text.encode())


def settle(tmp_path, letters: str, *, seconds_ago: float) -> None:
    store = store_with(store_of(tmp_path).folder, (letters, [1.0] * len(letters)))
    uri = storage.join(store.folder, f"{part_name(keys(*letters))}.parquet")
    os.utime(uri, times=(time() - seconds_ago,) * 2)


def test_a_pass_under_way_has_counts_a_rate_and_what_is_left(tmp_path):
    run = begin(tmp_path)
    settle(tmp_path, "abc", seconds_ago=500)
    plan(tmp_path, run, ("abc",), seconds_ago=110)
    settle(tmp_path, "de", seconds_ago=10)
    found = status(run.folder)
    base = found.passes["base"]
    assert (base.sequences, base.sequences_planned) == (5, 9)
    assert (base.tokens, base.tokens_planned) == (500, 900)
    assert base.rate == pytest.approx(200 / 100, rel=0.05)
    assert base.seconds_left == pytest.approx(400 / 2, rel=0.05)
    assert base.newest_part == pytest.approx(10, abs=2)
    assert found.age == pytest.approx(110, abs=2)
    assert (found.stage, found.record) == ("measure base", None)
    text = "\n".join(status_lines([found], found.folder))
    assert "unfinished" in text
    assert "5 of 9 sequences, 500 of 900 tokens (56%)" in text
    assert f"davir resume {run.folder}" in text


def test_a_compaction_changes_no_count(tmp_path):
    run = begin(tmp_path)
    plan(tmp_path, run, (), seconds_ago=100)
    for letters in ("abc", "de"):
        settle(tmp_path, letters, seconds_ago=1)
    before = status(run.folder).passes["base"]
    compact(store_of(tmp_path))
    after = status(run.folder).passes["base"]
    assert (after.sequences, after.tokens) == (before.sequences, before.tokens) == (5, 500)


def test_what_is_known_to_fail_is_settled(tmp_path):
    run = begin(tmp_path)
    plan(tmp_path, run, (), seconds_ago=100)
    store_of(tmp_path).write_failed(part_name(keys("i")), {keys("i")[0]: "died"})
    assert status(run.folder).passes["base"] == settled(1, 9, 100, 900)


def test_before_the_first_part_there_is_no_rate(tmp_path):
    run = begin(tmp_path)
    settle(tmp_path, "abc", seconds_ago=500)
    plan(tmp_path, run, ("abc",), seconds_ago=100)
    assert status(run.folder).passes["base"] == settled(3, 9, 300, 900)


def test_a_pass_that_is_over_has_no_rate(tmp_path):
    run = begin(tmp_path)
    plan(tmp_path, run, (), seconds_ago=100)
    for letters in CHUNKS:
        settle(tmp_path, letters, seconds_ago=1)
    run.event("measured", role="base", seconds=99.0, engine_seconds=90.0, retried_sequences=0)
    run.event("rank", rows=9)
    found = status(run.folder)
    assert found.passes["base"] == settled(9, 9, 900, 900)
    assert found.stage == "rank"


def test_a_run_that_only_began_can_be_told_of(tmp_path):
    found = status(begin(tmp_path).folder)
    assert (found.stage, found.age, found.passes) == ("begun", None, {})
    assert "last event never" in "\n".join(status_lines([found], found.folder))


RECORD = run_record(measured={"base": 9}, reused={"base": 2})


def test_a_finished_run_shows_its_record(tmp_path):
    run = begin(tmp_path)
    run.event("select", ranked=11)
    run.finish(RECORD)
    found = status(run.folder)
    assert (found.stage, found.finished, found.record) == ("finished", True, run.record(RunRecord))
    text = "\n".join(status_lines([found], found.folder))
    assert "12; 3 selected" in text
    assert "9 sequences measured; 2 were in the store" in text
    assert "resume" not in text


def test_an_output_folder_has_a_line_a_run(tmp_path):
    begin(tmp_path, "one-1").finish(RECORD)
    plan(tmp_path, begin(tmp_path, "two-2"), (), seconds_ago=100)
    settle(tmp_path, "fgh", seconds_ago=1)
    (tmp_path / "runs" / "notes").mkdir()
    output = str(tmp_path / "runs")
    lines = list(status_lines(statuses(output), output))
    assert lines == [
        "one-1  finished    never       davir: fraction 0.06  3 of 12 rows selected",
        "two-2  unfinished  1m 40s ago  davir: fraction 0.06  measure base, base 33%",
    ]


def test_runs_stand_in_the_order_of_time_with_label_score_and_rules(tmp_path):
    rules = [{"type": "quota", "by": "source", "count": 5}, {"type": "count", "count": 3}]
    changes = {
        "a-1": {"label": "the\x1b[31m newest"},
        "b-2": {"score": {"name": "rho_mean"}, "select": rules},
        "c-3": {"label": "2024"},
    }
    for name, seconds_ago in (("a-1", 10), ("b-2", 3000), ("c-3", 200)):
        run = Run.begin(parse_recipe(recipe_for(tmp_path) | changes[name], "r"), name)
        run.event("rank", rows=9)
        (event,) = run.events
        line = json.dumps(event | {"time": event["time"] - seconds_ago})
        storage.write_atomic(storage.join(run.folder, "events.jsonl"), f"{line}\n".encode())
    told = CliRunner().invoke(main, ["status", str(tmp_path / "runs"), "--json"])
    *lines, tree = told.stdout.splitlines()
    assert lines == [
        "b-2                      unfinished  50m 00s ago  rho_mean: quota by=source count=5, count 3  rank",
        "c-3  2024                unfinished  3m 20s ago   davir: fraction 0.06                        rank",
        "a-1  the\\x1b[31m newest  unfinished  10s ago      davir: fraction 0.06                        rank",
    ]
    found = json.loads(tree)["runs"]
    assert [(one["run_id"], one["label"]) for one in found] == [
        ("b-2", None),
        ("c-3", "2024"),
        ("a-1", "the\x1b[31m newest"),
    ]
    assert (found[0]["score"], found[0]["rules"]) == ("rho_mean", ["quota by=source count=5", "count 3"])
    one = CliRunner().invoke(main, ["status", str(tmp_path / "runs" / "c-3")]).stdout
    assert "label     2024\nchosen by davir: fraction 0.06\n" in one


def test_a_label_changes_neither_the_name_nor_the_result_of_a_run(tmp_path):
    named = [run_id_of(parse_recipe(recipe_for(tmp_path) | {"label": one}, "r"), "n") for one in ("a", "b")]
    assert len(set(named)) == 1


def test_a_recipe_that_is_damaged_leaves_the_run_its_line(tmp_path):
    run = begin(tmp_path)
    storage.write_atomic(run.paths.recipe, b"{")
    told = CliRunner().invoke(main, ["status", str(tmp_path / "runs")])
    assert told.exit_code == 0
    assert told.stdout == "name-1  unfinished  never  begun\n"
    assert "recipe.json" in told.stderr


def test_a_recipe_stands_for_its_output_and_json_says_the_same(tmp_path):
    run = begin(tmp_path)
    plan(tmp_path, run, (), seconds_ago=100)
    (tmp_path / "r.json").write_bytes(storage.read_bytes(run.paths.recipe))  # JSON is YAML
    told = [
        CliRunner().invoke(main, ["status", str(place), "--json"])
        for place in (tmp_path / "r.json", tmp_path / "runs", run.folder)
    ]
    assert [one.exit_code for one in told] == [0, 0, 0]
    assert [len(one.output.splitlines()) > 2 for one in told] == [False, False, True]
    for one in told:
        (found,) = json.loads(one.output.splitlines()[-1])["runs"]
        assert (found["run_id"], found["finished"]) == ("name-1", False)
        assert found["passes"]["base"]["tokens_planned"] == 900
        assert found["resume"] == f"davir resume {run.folder}"


def test_a_training_has_a_line_beside_the_runs_and_can_be_told_of(tmp_path):
    run = begin(tmp_path)
    folder = tmp_path / "runs" / "name-train-1"
    folder.mkdir()
    (folder / "training.json").write_text("{}")
    place = str(tmp_path / "runs")
    assert "".join(status_lines(statuses(place), place)).count("before the first step") == 1
    logged = [{"step": 0, "eval_loss": 1.5}, {"step": 5, "loss": 1.25}, {"step": 5, "eval_loss": 1.125}]
    write_metrics(str(folder), [{"max_steps": 12} | entry for entry in logged])
    _, line = status_lines(statuses(place), place)
    assert (
        re.sub(" +", " ", line) == "name-train-1 unfinished 0s ago step 5 of 12, loss 1.25, eval_loss 1.125"
    )
    assert list(status_lines(statuses(str(folder)), str(folder)))[1:] == [
        "progress  step 5 of 12, loss 1.25, eval_loss 1.125; 0s ago",
        "resume    the command that began it goes on with it",
    ]
    Run.from_folder(str(folder)).finish(training_record())
    told = CliRunner().invoke(main, ["status", place, "--json"])
    runs = json.loads(told.output.splitlines()[-1])["runs"]
    assert [(one["run_id"], one["finished"]) for one in runs] == [(run.run_id, False), (folder.name, True)]


def test_damaged_logs_and_stores_leave_every_run_its_line(tmp_path):
    run = begin(tmp_path)
    settle(tmp_path, "abc", seconds_ago=500)
    plan(tmp_path, run, (), seconds_ago=110)
    folder = tmp_path / "runs" / "name-train-1"
    folder.mkdir()
    (folder / "training.json").write_text("{}")
    (folder / "metrics.jsonl").write_text('{"a": 1}\n')
    store = store_of(tmp_path)
    compact(store_with(store.folder, ("de", [1.0, 1.0])))
    (merged,) = [part.uri for part in store.parts()]
    storage.write_atomic(merged, b"PAR1")
    told = CliRunner().invoke(main, ["status", str(tmp_path / "runs")])
    assert told.exit_code == 0
    assert "name-1        unfinished" in told.output
    assert "name-train-1  unfinished" in told.output
    assert f"{merged}: " in told.output
    assert "metrics.jsonl: line 1 has no step" in told.output
    assert status(run.folder).passes == {}


def test_a_run_is_told_of_in_full_from_within_its_folder(tmp_path, monkeypatch):
    run = begin(tmp_path)
    monkeypatch.chdir(run.folder)
    told = CliRunner().invoke(main, ["status", "."])
    assert told.exit_code == 0
    assert f"resume    davir resume {run.folder}" in told.output


def test_a_training_is_not_taken_for_a_run(tmp_path):
    (tmp_path / "training.json").write_text("{}")
    told = CliRunner().invoke(main, ["resume", str(tmp_path)])
    assert told.exit_code == RecipeError.exit_code
    assert "is a training; the command that started it goes on with it" in told.output


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="holds no run"):
        statuses(str(tmp_path))
    for verb in ("status", "resume"):
        told = CliRunner().invoke(main, [verb, str(tmp_path)])
        assert told.exit_code == RecipeError.exit_code
        assert "holds no run" in told.output


@pytest.mark.parametrize("label", ["first try", "2024", "null", 'say "it": #1', "a\\b"])
def test_a_label_of_the_command_line_is_text_whatever_it_looks_like(tmp_path, label):
    (tmp_path / "r.json").write_text(json.dumps(recipe_for(tmp_path) | {"label": "of the file"}))
    assert _load(str(tmp_path / "r.json"), (), None, label)[0].label == label
    assert _load(str(tmp_path / "r.json"), (), None)[0].label == "of the file"
