"""Records as other programs read them: whole, or refused in one line that names file, field and what was expected."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from davir_ray import storage
from davir_ray.cli import main
from davir_ray.cli.verify_runs import verify_run
from davir_ray.errors import DamagedPart, StoreError
from davir_ray.nightly.nights import Nights
from davir_ray.recipe import parse_recipe
from davir_ray.runs.history import past_run
from davir_ray.runs.record import RunRecord, TrainingRecord, load_record, load_training
from davir_ray.runs.run import Run
from davir_ray.storage.sealed import read_sealed, write_sealed
from tests.records import night_line, run_record, training_record


@pytest.fixture
def run(tmp_path) -> Run:
    """A run that is finished, and has a result file."""
    tree = {"corpus": {"paths": "rows.jsonl"}, "models": {"base": "b", "reference": "r"}}
    run = Run.begin(parse_recipe(tree | {"output": str(tmp_path), "store": str(tmp_path)}, "r"), "r-1")
    Path(storage.join(run.folder, "scored")).mkdir()
    Path(storage.join(run.folder, "scored", "0.parquet")).write_bytes(b"scores")
    run.finish(run_record())
    return run


def rewritten(run: Run, **changes) -> str:
    """Change fields of a record, as a program of another version writes it: sealed, and of other content."""
    uri = storage.join(run.folder, "record.json")
    tree = read_sealed(uri) | changes
    write_sealed(uri, {name: value for name, value in tree.items() if value != "absent"})
    return uri


def test_a_record_reads_as_it_was_written(run):
    record = load_record(run.folder)
    assert record.tree() == run_record().tree()
    assert record.results["scored/0.parquet"].bytes == 6
    assert run.record(RunRecord) == record
    assert "results" not in record.tree()
    assert json.loads(Path(storage.join(run.folder, "record.json")).read_text())["schema_version"] == 1


def test_a_record_of_a_training_is_another_kind(run, tmp_path):
    made = Run.in_output(str(tmp_path), "r-sft-1").finish(training_record())
    assert load_training(f"{tmp_path}/r-sft-1") == made
    with pytest.raises(DamagedPart):
        load_record(f"{tmp_path}/r-sft-1")
    with pytest.raises(DamagedPart):
        load_training(run.folder)
    assert Run.in_output(str(tmp_path), "r-sft-1").record(TrainingRecord) == made


def test_a_run_that_is_not_finished_has_no_record(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_record(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema_version": 2}, "schema_version: found 2; expected 1"),
        ({"schema_version": "absent"}, "schema_version: found nothing; expected 1"),
        ({"foreign": 3}, "foreign: there is no such field"),
        ({"rows": "absent"}, "rows: is missing"),
        ({"rows": "many"}, "rows: found 'many'; expected a valid integer, unable to parse string as an integer"),
        ({"engine": {"type": "hash"}}, "engine.dtype: is missing"),
        ({"best": [{"score": 1}]}, "best.0.example_id: is missing"),
        ({"measured": [3]}, "measured: found a list of 1; expected a valid dictionary"),
        ({"results": {"x": {"bytes": "b"}}}, "results.x.bytes: found 'b'; expected a valid integer, unable to parse"),
    ],
)  # fmt: skip
def test_a_record_that_does_not_fit_is_refused_in_one_line_and_counts_as_damaged(
    run, changes, reason, capsys
):
    uri = rewritten(run, **changes)
    with pytest.raises(DamagedPart) as raised:
        load_record(run.folder)
    assert str(raised.value).startswith(f"{uri}: {reason}")
    assert len(str(raised.value).splitlines()) == 1
    assert run.record(RunRecord) is None
    assert past_run(run.folder) is None
    told = CliRunner().invoke(main, ["status", run.folder])
    assert (told.exit_code, "unfinished" in told.output) == (0, True)
    (damage,) = verify_run(run.folder)
    assert str(damage).startswith(f"{uri}: {reason}")
    assert run.reopen(RunRecord) is None
    assert f"set aside, and made again: {uri}" in capsys.readouterr().err
    assert not Path(uri).exists()


def test_a_line_of_nights_that_does_not_fit_is_named_with_its_number(tmp_path):
    nights = Nights(str(tmp_path))
    nights.add(night_line())
    line = json.dumps(night_line().tree() | {"schema_version": 7})
    with Path(nights.uri).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(StoreError) as raised:
        nights.read()
    expected = f"{nights.uri}: line 2: schema_version: found 7; expected 1; take the line out"
    assert str(raised.value).startswith(expected)


def test_counters_take_any_label():
    labels = {"base/token_loss": 3, "target": 4, "reference-0": 5}
    record = run_record(measured=labels, reused=labels, measured_again=dict.fromkeys(labels, 0))
    assert RunRecord.model_validate(record.tree()) == record


def test_figures_that_are_no_numbers_come_back_as_they_were(tmp_path):
    run = Run.in_output(str(tmp_path), "r-sft-1")
    run.finish(training_record(train_loss=float("nan")))
    assert str(run.record(TrainingRecord).train_loss) == "nan"
