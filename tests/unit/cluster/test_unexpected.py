"""What nobody foresaw, raised in every stage: one line, the stage's exit code, and the traceback in a file."""

from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from ray.exceptions import RayTaskError

from davir_ray import pipeline
from davir_ray.cli import main, status, store_lines
from davir_ray.cluster import ray_session, unexpected
from davir_ray.cluster.unexpected import begun, ending, stage, unwrapped
from davir_ray.config import TrainConfig
from davir_ray.errors import CorpusError, EngineError, StoreError, TrainingError, Unexpected
from davir_ray.inputs import checks
from davir_ray.job import look_up_need, rank_corpus, select_and_export, tokenise
from davir_ray.measure import ray_measure, ray_pass_plan
from davir_ray.measure.measurement import Plan, Work
from davir_ray.runs import rows
from davir_ray.runs import run as runs
from davir_ray.runs.run import Run
from davir_ray.train import steps as training
from davir_ray.train.stage import run_training


class Foreign(Exception):
    """What no part of davir_ray expects."""


def fall(*_, **__):
    raise Foreign("first line\nsecond line")


def kept(output: str) -> str:
    """Check that an error is told in one line, and return the traceback in the file that the line names."""
    (line,) = output.strip().splitlines()
    path = line.partition("; the full traceback is in ")[2]
    text = Path(path).read_text()
    Path(path).unlink()
    return text


def corpus(folder: Path) -> str:
    (folder / "rows.jsonl").write_text('{"question": "Say A.", "answer": "A"}\n')
    (folder / "recipe.yaml").write_text(
        f"corpus: {{paths: {folder}/rows.jsonl}}\nmodels: {{base: {folder}/base, reference: {folder}/ref}}\n"
        f"store: {folder}/store\noutput: {folder}/runs\n"
    )
    return str(folder / "recipe.yaml")


@pytest.mark.parametrize(
    ("verb", "place", "function", "code"),
    [
        ("validate", checks, "list_corpus", 3),
        ("score", checks, "list_corpus", 3),
        ("plan", checks, "list_corpus", 3),
        ("nightly", checks, "list_corpus", 3),
        ("inspect", checks, "list_corpus", 3),
        ("inspect", checks, "resolve_all", 4),
        ("validate", checks, "resolve_all", 4),
        ("score", checks, "resolve_all", 4),
        ("score", pipeline, "check_inputs", 1),
        ("select", pipeline, "open_job", 1),
        ("train", training, "train", 1),
        ("run", training, "check_trainings", 1),
        ("reference", training, "make_models", 1),
        ("resume", Run, "existing", 1),
        ("status", status, "statuses", 1),
        ("show", rows, "show", 1),
        ("store info", runs, "place_of", 1),
        ("store verify", store_lines, "verify_lines", 1),
        ("store compact", runs, "place_of", 1),
        ("store prune --keep x", runs, "place_of", 1),
    ],
)
def test_a_foreign_exception_is_told_in_one_line_by_every_verb(
    tmp_path, monkeypatch, verb, place, function, code
):
    monkeypatch.setattr(place, function, fall)
    if function == "open_job":
        monkeypatch.setattr(pipeline, "check_inputs", lambda *_, **__: None)
    told = CliRunner().invoke(main, [*verb.split(), corpus(tmp_path)])
    assert told.output.startswith("error: unexpected Foreign: first line; the full traceback is in ")
    assert told.exit_code == code
    text = kept(told.output)
    assert "in fall" in text
    assert "second line" in text


def broken_job():
    """A job of which nothing works: every attribute is one that falls."""

    class Broken:
        def __getattr__(self, name):
            fall()

    return Broken()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda job: tokenise(job), CorpusError.exit_code),
        (lambda job: ray_pass_plan.plan(job), StoreError.exit_code),
        (lambda job: look_up_need(job, "loss", "base"), StoreError.exit_code),
        (lambda job: ray_measure.measure([Work(job, job_with_chunks(), [])], job), EngineError.exit_code),
        (lambda job: rank_corpus(job, None), 1),
        (lambda job: select_and_export(job, job), 1),
        (lambda job: run_training(job, None, TrainConfig(zero_stage=None), "name"), TrainingError.exit_code),
    ],
    ids=["prepare", "look-up", "look-up for scores", "measure", "rank", "select and export", "train"],
)
def test_each_stage_gives_a_foreign_exception_its_exit_code(call, code):
    with pytest.raises(Unexpected, match=r"^unexpected Foreign: first line$") as raised:
        call(broken_job())
    assert raised.value.exit_code == code
    assert isinstance(raised.value.__cause__, Foreign)


def job_with_chunks():
    return Plan(1, 1, 1, pa.table({"split": [0]}))


def test_what_an_engine_raises_comes_back_with_the_workers_traceback():
    text = told_by(fall)
    with pytest.raises(Unexpected) as raised:
        ray_session.raise_encoded(text, EngineError)
    (told,), code = ending(raised.value)
    assert told.startswith("error: unexpected Foreign: first line; ")
    assert code == EngineError.exit_code
    assert "In the worker:" in (where := kept(told))
    assert "in told_by" in where


def told_by(function) -> str:
    try:
        function()
    except Foreign as error:
        return ray_session.encode_error(error)
    raise AssertionError


def test_an_error_of_ours_comes_back_from_a_worker_as_it_was():
    with pytest.raises(StoreError, match=r"^the store: is full$"):
        ray_session.raise_encoded(ray_session.encode_error(StoreError("the store: is full")), EngineError)


def test_rays_wrapper_never_stands_before_our_own_sentence():
    wrapped = RayTaskError("task", "Traceback ...", StoreError("the store: is full")).as_instanceof_cause()
    assert ending(wrapped) == (["error: the store: is full"], StoreError.exit_code)
    with pytest.raises(StoreError, match=r"^the store: is full$") as raised, stage(EngineError):
        raise wrapped
    assert type(raised.value) is StoreError
    where = 'ray::task() (pid=1)\n  File "odd.py", line 7, in task\n    fall()\nForeign: odd'
    foreign = RayTaskError("task", where, Foreign("odd")).as_instanceof_cause()
    assert type(unwrapped(foreign)) is Foreign
    (told,), code = ending(foreign)
    assert (told.startswith("error: unexpected Foreign: odd; "), code) == (True, 1)
    assert 'File "odd.py", line 7' in kept(told), "where the worker raised it"


def test_a_kept_traceback_holds_no_credentials():
    secret = "s3://b/x?X-Amz-Signature=" + "5ec7e7" * 4
    (told,), _ = ending(Unexpected(f"cannot read {secret}", 5, worker_traceback=f"Foreign: {secret}"))
    assert "5ec7e7" not in told
    where = kept(told)
    assert "In the worker:" in where
    assert "5ec7e7" not in where


def test_an_inner_stage_goes_before_an_outer_one():
    with pytest.raises(Unexpected) as raised, stage(EngineError), stage(StoreError):
        fall()
    assert raised.value.exit_code == StoreError.exit_code


def test_an_interrupt_says_how_to_go_on(monkeypatch, tmp_path):
    def interrupted(*_, **__):
        begun("davir resume runs/one")
        raise KeyboardInterrupt

    monkeypatch.setattr(unexpected, "way_on", "")
    assert ending(KeyboardInterrupt()) == (["interrupted"], 130)
    monkeypatch.setattr(pipeline, "check_inputs", interrupted)
    told = CliRunner().invoke(main, ["score", corpus(tmp_path)])
    assert told.output == "interrupted; the same command goes on, or: davir resume runs/one\n"
    assert told.exit_code == 130
    begun()
    assert ending(KeyboardInterrupt()) == (["interrupted; the same command goes on"], 130)
