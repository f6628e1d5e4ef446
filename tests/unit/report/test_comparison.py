"""Two runs joined by row, beside what pandas says of their scored tables."""

import json
import random
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scipy.stats import spearmanr

from davir_ray.cli import main
from davir_ray.report.comparison import ABSENT, Comparison, compare, compared, finished
from davir_ray.report.comparison_page import comparison_page, shares_within
from davir_ray.report.page import page_of
from tests.made_runs import made_run, write_corpus


def rows(draw, count, first=0):
    return [
        {"question": f"{index}?", "answer": "word " * draw.randint(1, 40), "topic": ""}
        for index in range(first, first + count)
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs: the second has other losses, another fraction, and of the corpus other rows, some without an answer."""
    root, draw = tmp_path_factory.mktemp("made"), random.Random(1)
    write_corpus(root / "corpus", {"chat": (old := rows(draw, 300))})
    one = made_run(root, "made-000000000001", fraction=0.2)
    new = [*old[40:], *rows(draw, 60, first=1000)]
    for index in range(0, 60, 2):
        new[index] = new[index] | {"answer": ""}
    write_corpus(root / "corpus", {"chat": new})
    return one, made_run(root, "made-000000000002", fraction=0.3, seed=5, no_score_every=7)


@pytest.fixture(scope="module")
def pair(runs) -> Comparison:
    return compare(*map(finished, map(str, runs)))


@pytest.fixture(scope="module")
def tables(runs):
    return [pq.read_table(run / "scored").to_pandas().set_index("example_id") for run in runs]


def test_core_sets_are_compared_by_row(pair, tables):
    one, other = (set(table.index[table["selected"]]) for table in tables)
    assert (pair.both, pair.only[0].rows, pair.only[1].rows) == (
        len(one & other),
        len(one - other),
        len(other - one),
    )
    assert pair.change == pytest.approx(1 - len(one & other) / len(one | other))
    assert 0 < pair.both < len(one)


def test_ranks_are_correlated_over_the_rows_of_both(pair, tables):
    both = pd.concat([table["rank"] for table in tables], axis=1, keys=["a", "b"]).dropna()
    assert pair.correlation_rows == len(both) > 100
    assert pair.correlation == pytest.approx(spearmanr(both["a"], both["b"]).statistic)


@pytest.mark.parametrize("side", [0, 1])
def test_each_row_of_one_alone_is_as_jsonwith_what_left_it_out_of_the_other(pair, tables, side):
    here, there = tables[side], tables[1 - side]
    alone = here[here["selected"] & ~here.index.isin(there.index[there["selected"]])].sort_values("rank")
    why = [
        next(one for one in there.loc[key, ["dropped_by", "status"]] if isinstance(one, str))
        if key in there.index
        else ABSENT
        for key in alone.index
    ]
    found = pair.only[side]
    assert found.why == Counter(why)
    assert found.cause.total() == found.rows
    assert [one.row["rank"] for one in found.first] == alone["rank"].tolist()[: len(found.first)]
    assert [one.row["example_id"] for one in found.first] == [
        key.hex() for key in alone.index[: len(found.first)]
    ]
    assert [one.why for one in found.first] == why[: len(found.first)]
    ranks = [there["rank"].get(key) for key in alone.index]
    assert [one.rank_there for one in found.first] == [None if pd.isna(one) else one for one in ranks][
        : len(found.first)
    ]


def test_causes_are_those_of_a_drift(pair):
    assert [change.what for change in pair.changes] == ["select"]
    assert set(pair.only[0].cause) == {"data", "status", "rule"}
    assert pair.only[1].cause["data"] == pair.only[1].why[ABSENT]


def test_a_run_is_itself(runs):
    same = compare(*map(finished, map(str, (runs[0], runs[0]))))
    assert (same.change, same.correlation, [one.rows for one in same.only]) == (0.0, 1.0, [0, 0])


def test_core_sets_without_rows_are_compared(runs, tmp_path):
    write_corpus(tmp_path / "corpus", {"chat": rows(random.Random(2), 20)})
    none = made_run(tmp_path, "made-000000000003", fraction=0.001)
    assert compare(*map(finished, map(str, (none, none)))).change == 0.0
    pair = compare(*map(finished, map(str, (runs[0], none))))
    assert (pair.both, pair.correlation, pair.correlation_rows) == (0, None, 0)


def test_several_runs_are_each_compared_with_the_first(runs):
    found = compared([str(runs[0]), str(runs[1]), str(runs[0])])
    assert found.overlaps.tolist() == [
        [60, found.pairs[0].both, 60],
        [found.pairs[0].both, found.runs[1].record.selected, found.pairs[0].both],
        [60, found.pairs[0].both, 60],
    ]
    assert [pair.both for pair in found.pairs] == [found.overlaps[0, 1], 60]


def test_lengths_are_parts_of_a_core_set():
    assert shares_within(np.array([0, 2, 1, 1]), np.array([1, 2, 3])) == [0.5, 0.5]
    assert shares_within(np.zeros(0, dtype=np.int64), np.array([1, 2])) == [0.0]


def told(*arguments: str, code: int = 0) -> list[str]:
    result = CliRunner().invoke(main, ["compare", *arguments])
    assert result.exit_code == code, result.output
    return result.output.splitlines()


def test_the_comparison_is_printed(runs, pair):
    lines = told(*map(str, runs))
    assert lines[0].startswith("run 1     made-000000000001: 60 of 300 rows by davir; ")
    assert (
        f"1 and 2   {pair.both} rows in both core-sets; {pair.change:.1%} of the rows in either are in one alone"
        in lines
    )
    assert f"only 1    {pair.only[0].rows} rows; what left them out of 2:" in lines
    assert f"  {ABSENT:<20}{pair.only[0].why[ABSENT]:>10,}" in lines


def test_the_comparison_is_printed_as_json(runs, pair):
    as_json = json.loads(told(*map(str, runs), "--json")[-1])
    assert [one["run_id"] for one in as_json["runs"]] == [one.name for one in runs]
    assert as_json["overlaps"] == [[60, pair.both], [pair.both, as_json["runs"][1]["selected"]]]
    (only,) = as_json["pairs"]
    assert (only["runs"], only["both"], only["correlation"]) == ([0, 1], pair.both, pair.correlation)
    assert [one["rows"] for one in only["only"]] == [one.rows for one in pair.only]
    assert only["only"][0]["why"] == pair.only[0].why


def test_runs_that_have_a_label_are_called_by_it(runs, tmp_path):
    write_corpus(tmp_path / "corpus", {"chat": rows(random.Random(3), 30)})
    named = made_run(tmp_path, "made-000000000004", fraction=0.2, label="after <b>cleaning</b>")
    title = "after <b>cleaning</b> (made-000000000004)"
    assert finished(str(named)).title == title
    assert any(line.startswith(f"run 2     {title}: ") for line in told(str(runs[0]), str(named)))
    for page in (page_of(finished(str(named))), comparison_page(compared([str(runs[0]), str(named)]))):
        assert b"after &lt;b&gt;cleaning&lt;/b&gt; (made-000000000004)" in page


def test_runs_that_share_a_label_are_told_apart(runs, tmp_path):
    write_corpus(tmp_path / "corpus", {"chat": rows(random.Random(3), 30)})
    pair = [made_run(tmp_path, f"made-00000000000{at}", label="hash 5k") for at in (5, 6)]
    found = compared(list(map(str, pair)))
    assert found.names == ["made-000000000005 (hash 5k)", "made-000000000006 (hash 5k)"]
    text = comparison_page(found).decode()
    assert "<title>made-000000000005 (hash 5k), made-000000000006 (hash 5k) - davir_ray</title>" in text
    assert f"<td>{found.runs[1].ended_at}</td>" in text
    lines = told(*map(str, pair))
    assert any(line.startswith("run 2     made-000000000006 (hash 5k): ") for line in lines)
    assert compared([*map(str, pair), str(runs[0])]).names[2] == runs[0].name


def test_made_up_numbers_are_warned_of(runs, tmp_path):
    write_corpus(tmp_path / "corpus", {"chat": rows(random.Random(3), 30)})
    made_up = made_run(tmp_path, "made-000000000007", engine={"type": "hash"})
    others = [*map(str, runs), str(made_up)]
    for folders, which in ((others, "run 3"), ([str(made_up)] * 2, "runs 1, 2")):
        assert told(*folders)[0].startswith(f"engine    hash in {which}: made-up numbers, ")
        page = comparison_page(compared(folders)).decode()
        assert f'<p class="warn">The engine was hash in {which}: made-up numbers, ' in page
    as_json = json.loads(told(*others, "--json")[-1])
    assert [one["engine"] for one in as_json["runs"]] == ["transformers", "transformers", "hash"]


def test_measured_numbers_are_not_warned_of(runs):
    assert not any("made-up" in line for line in told(*map(str, runs)))
    assert b"made-up" not in comparison_page(compared(list(map(str, runs))))


def test_the_comparison_is_written_as_a_page(runs, tmp_path):
    out = tmp_path / "both.html"
    assert told(*map(str, runs), "--out", str(out))[-1] == f"page      {out}"
    text = out.read_text()
    assert "made-000000000002" in text
    assert comparison_page(compared(list(map(str, runs)))).decode() == text


def test_what_is_no_run_is_refused(runs, tmp_path):
    assert (
        told(str(runs[0]), code=2)[-1] == "Error: compare needs two runs or more, or a run and --score NAME"
    )
    (line,) = told(str(runs[0]), str(tmp_path), code=2)
    assert "holds no run" in line
    (runs[1] / "record.json").rename(tmp_path / "record.json")
    try:
        (line,) = told(*map(str, runs), code=2)
        assert "is not finished, or not whole" in line
    finally:
        (tmp_path / "record.json").rename(runs[1] / "record.json")
