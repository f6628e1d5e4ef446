"""The public interface without Ray: what is loaded, what may be given, and what a finished run on disk is read as."""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import davir_ray
from davir_ray import pipeline
from davir_ray.api.given import load
from davir_ray.errors import BrokenEnvironment, EngineError, RecipeError, Unexpected
from davir_ray.recipe import parse_recipe
from davir_ray.runs.run import Run as RunOnDisk
from tests.made_runs import made_run, write_corpus
from tests.records import job_record, run_record, training_record

TREE = {"corpus": {"paths": "rows.parquet"}, "models": {"base": "b", "reference": "r"}}


def test_the_package_is_cheap_to_import_and_says_what_it_has():
    code = (
        "import sys, davir_ray\n"
        "assert {'Run', 'score', 'select', 'run'} <= set(dir(davir_ray))\n"
        "loaded = {'ray', 'torch', 'pyarrow', 'pydantic', 'numpy', 'datasets', 'click'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "davir_ray.Run, davir_ray.score\n"
        "loaded = {'ray', 'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_what_the_package_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'davir_ray' has no attribute 'scoer'"):
        davir_ray.scoer  # noqa: B018


def test_a_recipe_is_given_as_a_file_a_mapping_or_as_it_was_read(tmp_path):
    (tmp_path / "mine.yaml").write_text(json.dumps(TREE))
    read = parse_recipe(TREE, "x")
    assert load(tmp_path / "mine.yaml") == (read, "mine")
    assert load(str(tmp_path / "mine.yaml"), name="other") == (read, "other")
    assert load(TREE) == load(read) == (read, "recipe")


@pytest.mark.parametrize("given", [TREE, parse_recipe(TREE, "x")])
def test_overrides_are_values_by_dotted_paths_or_the_texts_of_the_command_line(given):
    values = {"corpus.limit": 5, "select": [{"type": "threshold", "min_score": 1e-05}], "models.base": "c"}
    texts = ["corpus.limit=5", "select=[{type: threshold, min_score: 0.00001}]", "models.base=c"]
    (changed, _), (same, _) = load(given, values), load(given, texts)
    assert changed == same
    assert (changed.corpus.limit, changed.select[0].min_score) == (5, 1e-05)
    assert load(given, "corpus.limit=5")[0].corpus.limit == 5
    assert TREE == {"corpus": {"paths": "rows.parquet"}, "models": {"base": "b", "reference": "r"}}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"corpus.limit": 0}, "overrides 'corpus.limit': corpus.limit: found 0; expected 1 or more"),
        (
            {"corpus": {"path": "x"}},
            "overrides 'corpus': corpus.path: there is no such setting; did you mean `paths`?",
        ),
        ({"": 1}, "overrides '': expected a.b=value"),
        ({"a." * 40: 1}, "is nested more than 32 deep"),
        (["corpus.limit"], "--set corpus.limit: expected a.b=value"),
    ],
)
def test_an_override_that_is_wrong_is_named(overrides, told):
    with pytest.raises(RecipeError) as caught:
        load(TREE, overrides)
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/b", "a\0b"])
def test_a_name_that_no_folder_can_have_is_refused(name):
    with pytest.raises(RecipeError, match=r"^name: found '.*'; expected a name for folders"):
        load(TREE, name=name)


def test_a_uri_with_a_secret_is_refused_without_the_secret():
    for ask in (davir_ray.Run.open, davir_ray.score):
        with pytest.raises(RecipeError) as caught:
            ask("s3://KEY:SECRETSECRET@bucket/runs/r-1")
        assert "SECRETSECRET" not in str(caught.value)


@pytest.fixture
def scoring(monkeypatch):
    """The main job does nothing but note what it was given; its record is one of ours."""
    asked = {}

    def score(recipe, name, **settings):
        asked.update(recipe=recipe, name=name, **settings)
        return run_record()

    monkeypatch.setattr(pipeline, "score", score)
    monkeypatch.setattr(pipeline, "run_all", lambda *given: job_record(train=training_record()))
    return asked


def test_score_and_select_differ_in_whether_they_may_measure(scoring):
    assert davir_ray.score(TREE, name="n").record == run_record()
    assert scoring == {"recipe": parse_recipe(TREE, "x"), "name": "n"}
    assert davir_ray.select(TREE, overrides={"score.name": "ifd"}).folder == "runs/r-1"
    assert (scoring["may_measure"], scoring["recipe"].score.name) == (False, "ifd")
    assert davir_ray.run(TREE).record.train == training_record()


def test_what_nobody_foresaw_and_what_a_worker_raised_are_errors_of_ours(monkeypatch):
    from ray.exceptions import RayTaskError

    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(pipeline, "score", fail)
    failure = RayTaskError("f", "trace", EngineError("the engine is gone"))
    with pytest.raises(EngineError, match="the engine is gone"):
        davir_ray.score(TREE)
    failure = ZeroDivisionError("division by zero")
    with pytest.raises(Unexpected, match="unexpected ZeroDivisionError: division by zero") as caught:
        davir_ray.score(TREE)
    assert caught.value.__cause__ is failure


SCORED = pa.table({"score": [0.9, 0.5, 0.1], "rank": [1, 2, 3]})


def finish(folder, coreset: dict, formats=("parquet",)) -> davir_ray.Run:
    """Put a finished run into a folder, as if it had been made elsewhere. coreset: name below the folder -> rows."""
    (folder / "scored").mkdir(parents=True)
    for index in range(2):
        pq.write_table(SCORED.slice(index * 2, 2), folder / "scored" / f"0000{index}.parquet")
    for name, rows in coreset.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(rows), folder / name)
        else:
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.json").write_text(json.dumps(TREE))
    RunOnDisk.from_folder(str(folder)).finish(run_record(coreset=dict.fromkeys(formats, "moved/since")))
    return davir_ray.Run.open(folder)


def test_the_scored_table_is_read_in_order_and_where_the_folder_lies_now(tmp_path):
    run = finish(tmp_path / "r-1", {})
    assert run.record.selected == 3
    assert run.scored().equals(SCORED)
    assert run.scored(["rank"]).to_pandas()["rank"].tolist() == [1, 2, 3]
    with pytest.raises(RecipeError, match=r"r-1: its scored table has no column tier; it has score, rank$"):
        run.scored(["rank", "tier"])


def test_the_core_set_is_a_dataset_of_each_format_that_holds_rows(tmp_path):
    rows, pairs = [{"question": "a", "davir_rank": 1}, {"question": "b", "davir_rank": 2}], [{"prompt": "a"}]
    files = {"coreset/part-00000.parquet": rows[:1], "coreset/part-00001.parquet": rows[1:]}
    run = finish(
        tmp_path / "r[1]", files | {"exports/trl/part-00000.jsonl": pairs}, ("parquet", "ids", "trl")
    )
    assert run.coreset().to_list() == rows
    assert run.coreset("trl").to_list() == pairs
    with pytest.raises(RecipeError) as told:
        run.coreset("messages")
    assert str(told.value) == (
        f"{run.folder}: has no core-set in format messages; it has parquet, ids, trl; `davir select '{run.folder}' "
        "--set 'export.formats=[parquet, ids, trl, messages]'` makes a run that has"
    )
    beside = finish(tmp_path / "r-2", files, ("jsonl", "scores"))
    with pytest.raises(RecipeError, match=r"export\.formats=\[jsonl, trl\]"):
        beside.coreset("trl")
    with pytest.raises(RecipeError, match=r"^format ids holds no rows; those that do: parquet, jsonl, "):
        run.coreset("ids")


def test_a_core_set_without_rows_is_a_dataset_without_rows(tmp_path):
    run = finish(tmp_path / "r-1", {"exports/trl/part-00000.jsonl": []}, ("parquet", "trl"))
    (tmp_path / "r-1" / "coreset").mkdir()
    empty = pa.table({"question": pa.array([], pa.string())})
    pq.write_table(empty, tmp_path / "r-1" / "coreset" / "part-00000.parquet")
    assert (run.coreset().column_names, len(run.coreset())) == (["question"], 0)
    assert len(run.coreset("trl")) == 0


def test_a_part_without_rows_hides_no_other(tmp_path):
    kept, schema = [{"question": "a"}], pa.schema([("question", pa.string())])
    files = {"exports/trl/part-00000.jsonl": [], "exports/trl/part-00001.jsonl": kept}
    run = finish(tmp_path / "r-1", files | {"coreset/part-00001.parquet": kept}, ("parquet", "trl"))
    pq.write_table(schema.empty_table(), tmp_path / "r-1" / "coreset" / "part-00000.parquet")
    assert run.coreset().to_list() == run.coreset("trl").to_list() == kept


def test_of_several_sources_it_is_asked_which(tmp_path):
    names = {"alpaca": "alpaca", "a/b": "a%2Fb"}
    files = {f"coreset/{folder}/part-00000.parquet": [{"of": name}] for name, folder in names.items()}
    run = finish(tmp_path / "r-1", files)
    for name in names:
        assert run.coreset(source=name).to_list() == [{"of": name}]
    with pytest.raises(
        RecipeError, match=r"a core-set of several sources; say which with source=: a/b, alpaca$"
    ):
        run.coreset()
    with pytest.raises(RecipeError, match=r"has no source gsm8k; say which with source=: a/b, alpaca$"):
        run.coreset(source="gsm8k")


def test_without_datasets_the_command_that_brings_it_is_told(tmp_path, monkeypatch):
    run = finish(tmp_path / "r-1", {"coreset/part-00000.parquet": [{"a": 1}]})
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BrokenEnvironment, match=r"pip install 'davir-ray\[train\]' brings it") as caught:
        run.coreset()
    assert caught.value.exit_code == 9


def test_a_folder_without_a_finished_run_is_told_apart_from_one_whose_run_goes_on(tmp_path):
    with pytest.raises(RecipeError, match="none: holds no run"):
        davir_ray.Run.open(tmp_path / "none")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.json").write_text(json.dumps(TREE))
    with pytest.raises(RecipeError, match=r"is not finished, .* davir resume .*begun goes on with it"):
        davir_ray.Run.open(tmp_path / "begun")


def test_another_choice_is_of_the_recipe_in_the_folder_and_under_its_name(tmp_path, scoring):
    run = finish(tmp_path / "mine-0123", {})
    run.select({"type": "count", "count": 2}, overrides={"score.name": "rho_mean"})
    assert (scoring["name"], scoring["may_measure"]) == ("mine", False)
    assert [rule.model_dump() for rule in scoring["recipe"].select] == [{"type": "count", "count": 2}]
    run.select([{"type": "fraction", "fraction": 0.5}, {"type": "count", "count": 2}])
    assert [rule.type for rule in scoring["recipe"].select] == ["fraction", "count"]
    run.select()
    assert scoring["recipe"].select == parse_recipe(TREE, "x").select


def test_the_types_are_handed_on_to_programs_that_check_theirs():
    assert os.path.isfile(os.path.join(os.path.dirname(davir_ray.__file__), "py.typed"))


def test_a_run_writes_its_page(tmp_path):
    write_corpus(
        tmp_path / "corpus",
        {"a": [{"question": f"{i}?", "answer": f"{i}.", "topic": "t"} for i in range(20)]},
    )
    run = davir_ray.Run.open(made_run(tmp_path, "made-0123456789ab"))
    assert run.report() == f"{run.folder}/report.html"
    assert run.report(tmp_path / "page.html") == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().lower().startswith("<!doctype html>")
