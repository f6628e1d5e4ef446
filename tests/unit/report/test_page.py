"""The page of a run: what it says, where it is written, and that it leaves the run as it is."""

import json
import random
import re
import subprocess
import sys
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
from davir_ray.report import shown_rows as shown_rows_module
from davir_ray.report.coreset_rows import beginning, common_folder
from davir_ray.report.page import try_to_write_report, write_report
from davir_ray.report.recipe_text import in_one_line, recipe_text
from davir_ray.report.shown_rows import shown_ranks
from davir_ray.report.token_colours import Painted
from davir_ray.runs.record import load_record
from davir_ray.runs.run import load_run_or_recipe
from davir_ray.storage.sealed import write_sealed
from tests.made_runs import FORMAT, made_run, write_corpus
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


def answers(count: int) -> list[dict[str, str]]:
    return [
        {"question": f"{index}?", "answer": "word " * (index % 7 + 1), "topic": ""} for index in range(count)
    ]


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


def test_the_text_of_a_row_is_the_corpus_s_own_and_nothing_of_ours(page, runs):
    rows = data_of(page)["rows"]
    for place, text in zip(rows["place"], rows["text"], strict=True):
        file, _, row = f"{data_of(page)['folder']}{place}".rpartition(":")
        own = json.loads(Path(file).read_text().splitlines()[int(row)])
        whole = " | ".join(" ".join(part.split()) for part in own.values())
        assert text == whole.replace("\u202e", r"\u202e") or len(whole) > 290
    assert any(text.endswith(f" | {SCRIPT}") for text in rows["text"])


def test_places_stand_without_what_their_files_share(page, runs):
    data = data_of(page)
    assert data["folder"] == f"{runs[1].parents[1]}/corpus/"
    assert {place.rpartition(":")[0] for place in data["rows"]["place"]} <= {"<b>chat.jsonl", "maths.jsonl"}
    assert "id" not in data["rows"]


def test_a_row_has_its_id_or_its_place(tmp_path):
    rows = answers(40)
    for index, row in enumerate(rows[:30]):
        row["key"] = f"k{index}"
    write_corpus(tmp_path / "corpus", {"chat": rows})
    corpus = {"paths": str(tmp_path / "corpus" / "chat.jsonl"), "format": FORMAT, "id": "key"}
    run = made_run(tmp_path, "made-000000000001", fraction=1.0, corpus=corpus)
    write_report(str(run))
    told = data_of((run / "report.html").read_text())["rows"]
    pairs = set(zip(told["id"], told["place"], strict=True))
    own = {(f"k{index}", None) for index in range(30)}
    assert pairs == own | {(None, f"chat.jsonl:{index}") for index in range(30, 40)}


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        (["/a/b/c.jsonl"], "/a/b/"),
        (["/a/train-1.jsonl", "/a/train-2.jsonl"], "/a/"),
        (["/a/b/c.jsonl", "/a/bc/d.jsonl"], "/a/"),
        (["s3://one/a.jsonl", "s3://other/a.jsonl"], "s3://"),
        (["a.jsonl", "b.jsonl"], ""),
    ],
)
def test_the_folder_that_files_share(files, folder):
    assert common_folder(files) == folder


def test_groups_that_are_the_sources_are_shown_once(tmp_path, page):
    assert "<h3>Groups</h3>" in page
    assert 'data-column="group"' in page
    write_corpus(tmp_path / "corpus", {"chat": answers(40), "maths": answers(80)[40:]})
    paths = {name: str(tmp_path / "corpus" / f"{name}.jsonl") for name in ("chat", "maths")}
    corpus = {"paths": paths, "format": FORMAT, "group_by": "source"}
    run = made_run(tmp_path, "made-000000000001", fraction=0.5, corpus=corpus)
    write_report(str(run))
    text = (run / "report.html").read_text()
    assert "<h3>Groups</h3>" not in text
    assert "group" not in data_of(text)["rows"]
    assert set(data_of(text)["rows"]["source"]) == {"chat", "maths"}
    assert 'data-column="group"' not in text


def painted(*names: str):
    """Stand for `tokens_in_colours`: each row that is shown has one token of each name."""
    tokens = [Painted(name, 1.5, ((SCRIPT, 2, 1.5),), 0) for name in names]
    return lambda folder, record, recipe, rows: {
        row["rank"]: {"tokens": tokens, "no_tokens": None} for row in rows
    }


def test_colours_of_tokens_are_told_where_there_are_some(runs, page, monkeypatch):
    assert "The colours of tokens" not in page
    for names, told in ((["base"], False), (["base", "reference", "difference"], True)):
        monkeypatch.setattr(shown_rows_module, "tokens_in_colours", painted(*names))
        write_report(str(runs[1]), "memory://pages/colours.html")
        text = storage.read_bytes("memory://pages/colours.html").decode()
        assert '<span class="step t0">below 0.1</span> <span class="step t1">0.1 to 0.7</span>' in text
        assert ('<span class="step d4">0.7 up</span>' in text) == told
        assert ("blue what the base is surer of" in text) == told


def test_without_a_core_set_in_parquet_the_table_has_no_column_of_texts_and_says_so(tmp_path):
    write_corpus(tmp_path / "corpus", {"chat": answers(40)})
    run = made_run(tmp_path, "made-000000000001", export={"formats": ["jsonl"]})
    write_report(str(run))
    text = (run / "report.html").read_text()
    assert list(data_of(text)["rows"])[-1] == "place"
    assert 'data-column="place"' in text
    assert 'data-column="text"' not in text
    assert "The run wrote no core-set as Parquet" in text
    assert 'placeholder="Search files, sources"' in text


@pytest.mark.parametrize("fraction", [0.003, 0.997])
def test_of_a_tiny_fraction_the_histogram_shows_the_chosen_rows_and_the_cut(tmp_path, fraction):
    write_corpus(tmp_path / "corpus", {"chat": answers(1000)})
    run = made_run(tmp_path, "made-000000000001", fraction=fraction)
    write_report(str(run))
    plot = data_of((run / "report.html").read_text())["plots"]["scores"]
    assert (sum(plot["selected"]), sum(plot["ranked"])) == (1000 * fraction, 1000)
    (cut,) = plot["cuts"]
    assert plot["middles"][0] < cut < plot["middles"][-1]
    assert sum(count for count in plot["selected"][1:-1]) > 0
    near = plot["middles"][1:-1].index(min(plot["middles"][1:-1], key=lambda middle: abs(middle - cut)))
    assert sum(plot["selected"][near : near + 3]) > 0


def test_score_against_length_is_drawn_for_the_chosen_score_and_two_others(page):
    plots = data_of(page)["plots"]
    told = [plots[f"lengths-{index}"] for index in range(3)]
    assert [one["y"] for one in told] == ["davir", "rho_sum", "rho_mean"]
    assert len({json.dumps(one["all"][1]) for one in told}) == 3
    assert all(f'id="lengths-{index}"' in page for index in range(3))
    assert "the run measured nothing that gives" not in page


def test_a_run_that_measured_nothing_for_other_scores_says_so(tmp_path):
    write_corpus(tmp_path / "corpus", {"chat": answers(40)})
    run = made_run(tmp_path, "made-000000000001", score={"name": "base_loss"})
    write_report(str(run))
    text = (run / "report.html").read_text()
    assert "No other score is shown beside it: the run measured nothing that gives one." in text
    assert set(data_of(text)["plots"]) == {"scores", "lengths-0"}


def test_the_foot_has_versions_and_a_command_that_a_shell_takes(tmp_path):
    write_corpus(tmp_path / "corpus", {"chat": answers(20)})
    run = made_run(tmp_path, "my run-000000000001")
    write_report(str(run))
    text = unescape((run / "report.html").read_text())
    assert "<dt>ray</dt><dd>2.60.0</dd>\n<dt>torch</dt><dd>2.13.0</dd>" in text
    assert "<code>davir score 'my run.yaml'</code>" in text


def test_why_rows_were_left_out_names_what_can_leave_them_out(tmp_path):
    rows = answers(50)
    for row in rows[:6]:
        row["answer"] = ""
    write_corpus(tmp_path / "corpus", {"chat": rows, "maths": answers(67)[60:]})
    select = [{"type": "keep_sources", "sources": ["maths"]}, {"type": "fraction", "fraction": 0.1}]
    run = made_run(tmp_path, "made-000000000001", select=select[::-1])
    write_report(str(run))
    record, text = load_record(str(run)), (run / "report.html").read_text()
    (part,) = re.findall(r"<h3>Why rows were left out</h3>(.*?)</section>", text, re.DOTALL)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", part)
    left_out = record.ranked - record.selected
    assert cells == ["0:fraction", "fraction: 0.1", str(left_out), *status_cells(record)]
    assert record.status["ok"] == record.ranked
    assert "No rule could leave out the 7 ranked rows of maths (keep_sources)" in part
    assert "of the ranked; 7 of them whatever the rules say (keep_sources)</span>" in text


def status_cells(record) -> list[str]:
    return [one for status, count in record.status.items() if status != "ok" for one in (status, str(count))]


def test_where_nothing_was_left_out_the_page_says_so(tmp_path):
    write_corpus(tmp_path / "corpus", {"chat": [{"question": "Two?", "answer": "2", "topic": ""}]})
    run = made_run(tmp_path, "made-000000000001", fraction=1.0)
    write_report(str(run))
    text = (run / "report.html").read_text()
    assert "Every row of the corpus has a rank." in text
    assert "<td>ok</td>" not in text
    assert "keep_sources" not in text


def test_settings_stand_as_one_would_write_them():
    settings = {"by": "source", "sources": ["a: b", "東"], "floors": {"x": 0.5}, "most": None}
    assert in_one_line(settings) == "by: source, sources: ['a: b', 東], floors: {x: 0.5}, most: null"
    assert in_one_line({"sources": ["hostile"]}) == "sources: [hostile]"
    assert in_one_line({}) == ""


def test_hostile_rows_are_text(page):
    assert "<script>alert" not in page
    assert "<b>chat" not in page
    assert "\u202e" not in page
    assert page.count("&lt;script&gt;alert") > 10


def test_the_recipe_on_the_page_makes_the_run_again(page, runs):
    (text,) = re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)
    assert parse_recipe(yaml.safe_load(unescape(text)), "made") == load_run_or_recipe(str(runs[1]), ())[0]


def test_a_page_is_written_without_what_takes_seconds_to_load(runs, tmp_path):
    code = (
        "import sys; from davir_ray.report.page import write_report\n"
        f"write_report({str(runs[1])!r}, {str(tmp_path / 'page.html')!r})\n"
        "heavy = {'ray', 'torch', 'transformers', 'scipy', 'datasets', 'huggingface_hub', 'datasketch'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


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
    assert data_of((run / "report.html").read_text()) == {"plots": {}, "rows": {}, "folder": ""}


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
