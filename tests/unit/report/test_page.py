"""The page of a run: what it says, where it is written, and that it leaves the run as it is."""

import json
import random
import re
from html import unescape
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from davir_ray import storage
from davir_ray.cli import main
from davir_ray.recipe import load_recipe, parse_recipe
from davir_ray.report import coreset_rows as coreset_rows_module
from davir_ray.report import page as page_module
from davir_ray.report.coreset_rows import beginning
from davir_ray.report.page import try_to_write_report, write_report
from davir_ray.report.recipe_text import recipe_text
from davir_ray.report.shown_rows import shown_ranks
from davir_ray.runs.record import load_record
from davir_ray.runs.run import load_run_or_recipe
from davir_ray.storage.sealed import write_sealed
from tests.made_runs import made_run, write_corpus
from tests.records import drift

SCRIPT = "<script>alert('from a row')</script>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one name, on a corpus in which a row of each kind is hostile."""
    root, draw = tmp_path_factory.mktemp("made"), random.Random(3)
    rows = [
        {
            "question": f"{index}? {SCRIPT}",
            "answer": f"\u202e{'word ' * draw.randint(1, 40)}",
            "topic": SCRIPT,
        }
        for index in range(120)
    ]
    rows[5]["answer"] = ""
    write_corpus(root / "corpus", {"<b>chat": rows[:80], "maths": rows[80:]})
    return made_run(root, "made-000000000001"), made_run(root, "made-000000000002", fraction=0.2, seed=7)


@pytest.fixture(scope="module")
def page(runs) -> str:
    write_report(str(runs[1]))
    return (runs[1] / "report.html").read_text()


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_every_row_that_the_record_shows_is_there_once(page, runs):
    record = load_record(str(runs[1]))
    told = re.findall(r"<header><b>rank ([\d,]+)</b>", page)
    assert sorted(map(int, told)) == sorted(shown_ranks(record))
    assert len(told) == len(record.best) + len(record.borderline) + len(record.worst)


def test_the_table_has_the_core_set_in_the_order_of_ranks(page, runs):
    record, rows = load_record(str(runs[1])), data_of(page)["rows"]
    assert rows["rank"] == list(range(1, record.selected + 1))
    assert sum(rows["tokens"]) == record.tokens
    assert set(rows["source"]) <= {"<b>chat", "maths"}
    assert all(
        re.fullmatch(rf"\d+\? {re.escape(SCRIPT)} \| \\u202e(word ?)+\.* \| .*", one) for one in rows["text"]
    )


def test_hostile_rows_are_text(page):
    assert "<script>alert" not in page
    assert "<b>chat" not in page
    assert "\u202e" not in page
    assert page.count("&lt;script&gt;alert") > 10


def test_the_recipe_on_the_page_makes_the_run_again(page, runs):
    (text,) = re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)
    assert parse_recipe(yaml.safe_load(unescape(text)), "made") == load_run_or_recipe(str(runs[1]), ())[0]


RECIPES = sorted((Path(__file__).parents[3] / "jobs" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_written_without_its_defaults(path):
    recipe = load_recipe(str(path), ())
    text = recipe_text(recipe)
    assert parse_recipe(yaml.safe_load(text), "again") == recipe
    assert len(text) < len(yaml.safe_dump(recipe.model_dump(mode="json"))) / 2


def test_the_run_before_is_compared(page, runs):
    assert "Since made-000000000001" in page
    write_report(str(runs[0]), str(runs[0].parent / "first.html"))
    assert "Since " not in (runs[0].parent / "first.html").read_text()


def test_a_night_tells_of_its_drift(runs, tmp_path):
    told = drift(before="made-000000000001", after="made-000000000002")
    write_sealed(str(runs[1] / "drift.json"), told.tree())
    try:
        write_report(str(runs[1]), str(tmp_path / "night.html"))
    finally:
        (runs[1] / "drift.json").unlink()
    assert "3 rows are new, 1 are gone, 9 are in both." in (tmp_path / "night.html").read_text()


def test_the_run_is_left_as_it_is_and_the_page_is_the_same_again(runs, page):
    before = {path: path.read_bytes() for path in runs[1].rglob("*") if path.is_file()}
    write_report(str(runs[1]))
    assert {path: path.read_bytes() for path in runs[1].rglob("*") if path.is_file()} == before
    assert runs[1] / "report.html" in before


def test_the_page_is_written_where_it_is_wanted(runs, page):
    result = CliRunner().invoke(main, ["report", str(runs[1]), "--out", "memory://pages/one.html"])
    assert (result.exit_code, result.output) == (0, "report    memory://pages/one.html\n")
    assert storage.read_bytes("memory://pages/one.html").decode() == page
    result = CliRunner().invoke(main, ["report", str(runs[1].parent)])
    assert (result.exit_code, "holds no run" in result.output) == (2, True)


def test_a_place_with_a_password_is_refused(runs):
    secret = "s3://user:secret@bucket/page.html"
    for arguments in (["report", str(runs[1]), "--out", secret], ["compare", str(runs[1]), secret]):
        result = CliRunner().invoke(main, arguments)
        assert (result.exit_code, "secret@" in result.output) == (2, False)


def test_a_page_that_fails_is_a_line_and_no_failure(runs, monkeypatch, capsys):
    monkeypatch.setattr(page_module, "page_of", lambda run: 1 / 0)
    try_to_write_report(str(runs[1]))
    (line,) = capsys.readouterr().err.splitlines()
    assert "the page of the run could not be written: division by zero; `davir report" in line


def test_of_a_large_core_set_there_is_a_sample(runs, monkeypatch, tmp_path):
    monkeypatch.setattr("davir_ray.report.figures.TABLE_ROWS", 5)
    monkeypatch.setattr(page_module, "POINTS", 50)
    write_report(str(runs[1]), str(tmp_path / "small.html"))
    text, record = (tmp_path / "small.html").read_text(), load_record(str(runs[1]))
    assert len(data_of(text)["rows"]["rank"]) == 5
    assert f"A sample of 5 of the {record.selected} chosen rows, drawn by content" in text
    assert f"A sample of 50 of the {record.ranked} ranked rows, drawn by content." in text


def test_a_run_without_ranked_rows_has_a_page(tmp_path):
    write_corpus(tmp_path / "corpus", {"chat": [{"question": "?", "answer": "", "topic": ""}]})
    run = made_run(tmp_path, "none-000000000001")
    write_report(str(run))
    assert data_of((run / "report.html").read_text()) == {"plots": {}, "rows": {}}


def test_the_beginning_of_a_row_is_cut_by_bytes():
    assert beginning({"role": "user", "a": "x\n y", "b": ["z", 1]}, 100) == "x y | z"
    cut = beginning({"a": "東" * 50}, 20)
    assert cut == "東" * 5 + "..."
    assert len(cut.encode()) <= 20


def test_texts_of_a_full_table_fit_the_page(runs, monkeypatch):
    monkeypatch.setattr(coreset_rows_module, "TEXT_BYTES", 240)
    write_report(str(runs[1]), "memory://pages/cut.html")
    rows = data_of(storage.read_bytes("memory://pages/cut.html").decode())["rows"]
    assert max(len(text.encode()) for text in rows["text"]) <= 240 // len(rows["rank"])
