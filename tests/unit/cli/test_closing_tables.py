"""Whole closing tables: ranked rows, chosen by the rules themselves, to the lines that a run ends with."""

from functools import partial

import pandas as pd
import pyarrow as pa
import pytest

from davir_ray.cli.closing_lines import record_lines
from davir_ray.coreset.rules import (
    CountRule,
    DifficultyRule,
    FractionRule,
    KeepSourcesRule,
    LengthQuotaRule,
    QuotaRule,
    ThresholdRule,
)
from davir_ray.coreset.rules.choose import choose, rule_names
from davir_ray.coreset.summary import summarise
from davir_ray.schema import SCORED
from tests.records import run_record

HEAD = """\
run       r-1  (2.5 s)
rows      {rows}
{status}
measured  base: 12 sequences; 0 were in the store
"""
FOOT = """\
scored    runs/r-1/scored
core-set  runs/r-1/coreset  (parquet)
"""
LENGTHS = [5, 30, 7, 28, 9, 26, 11, 24, 13, 22, 15, 20]


def ranked_rows(count=12, **columns):
    """Return rows with a rank; row i of rows.jsonl has rank i + 1 and score 1 - i / 20."""
    made = {
        "example_id": [i.to_bytes(16, "big") for i in range(count)],
        "file": "rows.jsonl",
        "row": range(count),
        "source": "corpus",
        "group": "",
        "status": "ok",
        "base_loss": 4.0,
        "reference_loss": 2.0,
        "num_tokens": LENGTHS[:count],
        "score": [1 - i / 20 for i in range(count)],
        "rank": range(1, count + 1),
        "percentile": 50.0,
    }
    return pd.DataFrame(made | columns)


def table_of(rows, rules, unscored=()):
    """Choose among ranked rows, and tell what a run would tell of it."""
    frame = pa.Table.from_pandas(rows, preserve_index=False)
    (choice,) = choose(rules, lambda columns: iter([frame.select(list(columns))])) if rules else (None,)
    selected = choice.selected.tolist() if choice else [True] * len(rows)
    fates = [[*rule_names(rules), None][code] for code in choice.dropped_by] if choice else [None] * len(rows)
    records = [
        row | {"selected": is_in, "dropped_by": fate}
        for row, is_in, fate in zip(rows.to_dict("records"), selected, fates, strict=True)
    ]
    scored = pa.Table.from_pylist([*records, *unscored], schema=SCORED)
    summary = summarise(partial(scan, scored), rules)
    return "\n".join(record_lines(run_record(**dict(summary)))) + "\n"


def scan(table, columns):
    """Read a table in parts of five rows."""
    return (table.select(list(columns)).slice(at, 5) for at in range(0, len(table), 5))


def middle(text):
    """Return the lines between what was measured and where the files are."""
    return text.split("in the store\n")[1].split("scored    runs")[0]


@pytest.fixture(autouse=True)
def corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"text": "Row {i}."}}\n' for i in range(3)))


def test_a_fraction_cuts_once():
    text = table_of(ranked_rows(), [FractionRule(fraction=0.5)])
    assert text == HEAD.format(rows=12, status="  ok                          12") + (
        """\
selected  6 rows, 105 response tokens
  corpus                       6 of 12
left out  6 of 12 ranked rows
  0:fraction                   6
score     davir; rank correlation with response length -0.13
  best           1.0000  rank 1              5 tokens  selected          rows.jsonl:0
             Row 0.
  best           0.9500  rank 2             30 tokens  selected          rows.jsonl:1
             Row 1.
  best           0.9000  rank 3              7 tokens  selected          rows.jsonl:2
             Row 2.
  borderline     0.8000  rank 5              9 tokens  selected          rows.jsonl:4
  borderline     0.7500  rank 6             26 tokens  selected          rows.jsonl:5
  borderline     0.7000  rank 7             11 tokens  0:fraction        rows.jsonl:6
  borderline     0.6500  rank 8             24 tokens  0:fraction        rows.jsonl:7
  worst          0.5500  rank 10            22 tokens  0:fraction        rows.jsonl:9
  worst          0.5000  rank 11            15 tokens  0:fraction        rows.jsonl:10
  worst          0.4500  rank 12            20 tokens  0:fraction        rows.jsonl:11
"""
        + FOOT
    )


def test_a_quota_counts_by_group_and_cuts_in_each():
    groups = ["poems"] * 7 + ["sums"] * 3 + ["jokes"] * 2
    rows = ranked_rows(group=groups)
    assert middle(table_of(rows, [QuotaRule(count=1)])) == (
        """\
selected  3 rows, 44 response tokens
  corpus                       3 of 12
left out  9 of 12 ranked rows
  0:quota                      9
    poems                      6
    sums                       2
    jokes                      1
score     davir; rank correlation with response length -0.13
  best           1.0000  rank 1              5 tokens  selected          rows.jsonl:0
             Row 0.
  best           0.9500  rank 2             30 tokens  0:quota           rows.jsonl:1
             Row 1.
  best           0.9000  rank 3              7 tokens  0:quota           rows.jsonl:2
             Row 2.
  borderline     0.6500  rank 8             24 tokens  selected          rows.jsonl:7
  worst          0.5500  rank 10            22 tokens  0:quota           rows.jsonl:9
  worst          0.5000  rank 11            15 tokens  selected          rows.jsonl:10
  worst          0.4500  rank 12            20 tokens  0:quota           rows.jsonl:11
"""
    )


def test_groups_of_a_quota_beyond_the_tenth_are_counted_together():
    rows = ranked_rows(12, group=[f"group {i:02d}" for i in range(12)])
    kept = [ThresholdRule(min_score=0.0), QuotaRule(count=1), QuotaRule(by="source", count=1)]
    assert (
        "left out  11 of 12 ranked rows\n  0:threshold                  0\n  1:quota                      0\n"
        in (table_of(rows, kept))
    )
    twice = pd.concat([rows, rows], ignore_index=True)
    twice["rank"] = range(1, 25)
    text = middle(table_of(twice, [QuotaRule(count=1)]))
    assert "    group 09                   1\n    ... 2 more                 2\nscore" in text
    assert "group 10" not in text


def test_rows_without_a_group_are_a_group():
    text = middle(table_of(ranked_rows(4, group=["", "", "", "sums"]), [QuotaRule(count=1)]))
    assert "  0:quota                      2\n    (no group)                 2\nscore" in text


def test_a_length_quota_cuts_in_each_band_and_holds_a_strong_correlation():
    rows = ranked_rows(num_tokens=sorted(LENGTHS))
    assert middle(table_of(rows, [LengthQuotaRule(bands=2, fraction=0.5)])) == (
        """\
selected  6 rows, 87 response tokens
  corpus                       6 of 12
left out  6 of 12 ranked rows
  0:length_quota               6
score     davir; rank correlation with response length -1.00
  best           1.0000  rank 1              5 tokens  selected          rows.jsonl:0
             Row 0.
  best           0.9500  rank 2              7 tokens  selected          rows.jsonl:1
             Row 1.
  best           0.9000  rank 3              9 tokens  selected          rows.jsonl:2
             Row 2.
  borderline     0.8500  rank 4             11 tokens  0:length_quota    rows.jsonl:3
  borderline     0.8000  rank 5             13 tokens  0:length_quota    rows.jsonl:4
  borderline     0.6500  rank 8             22 tokens  selected          rows.jsonl:7
  borderline     0.6000  rank 9             24 tokens  selected          rows.jsonl:8
  worst          0.5500  rank 10            26 tokens  0:length_quota    rows.jsonl:9
  worst          0.5000  rank 11            28 tokens  0:length_quota    rows.jsonl:10
  worst          0.4500  rank 12            30 tokens  0:length_quota    rows.jsonl:11
"""
    )


@pytest.mark.parametrize(
    ("lengths", "rules", "line"),
    [
        (
            sorted(LENGTHS),
            [FractionRule(fraction=0.5)],
            "length    shorter responses score higher (the correlation is beyond 0.3), so choosing by score changes "
            "lengths: response tokens a row are 10.0 in the core-set, 17.5 in all ranked rows; "
            "rule `length_quota` holds the corpus's",
        ),
        (
            sorted(LENGTHS, reverse=True),
            [ThresholdRule(min_score=9.0)],
            "length    longer responses score higher (the correlation is beyond 0.3), so choosing by score changes "
            "lengths: response tokens a row are 17.5 in all ranked rows; rule `length_quota` holds the corpus's",
        ),
        (LENGTHS, [FractionRule(fraction=0.5)], None),
        ([7] * 12, [FractionRule(fraction=0.5)], None),
        (sorted(LENGTHS), [LengthQuotaRule(fraction=0.5), CountRule(count=2)], None),
    ],
)
def test_a_strong_correlation_with_length_is_explained_unless_a_rule_holds_it(lengths, rules, line):
    told = [
        one for one in table_of(ranked_rows(num_tokens=lengths), rules).splitlines() if one[:7] == "length "
    ]
    assert told == ([line] if line else [])


def test_where_nothing_is_ranked_there_is_no_row_to_show():
    unscored = [
        row | {"status": status, "score": None, "rank": None, "percentile": None, "selected": False}
        for row, status in zip(
            ranked_rows(4).to_dict("records"), ["no_score"] * 3 + ["no_response_tokens"], strict=True
        )
    ]
    text = table_of(ranked_rows(0), [FractionRule(fraction=0.5)], unscored)
    status = "  no_score                     3\n  no_response_tokens           1"
    assert text == HEAD.format(rows=4, status=status) + (
        """\
selected  0 rows, 0 response tokens
  corpus                       0 of 4
score     davir; rank correlation with response length not defined
scored    runs/r-1/scored
unscored  runs/r-1/unscored  (file, row and reason of each row without a rank)
core-set  runs/r-1/coreset  (parquet)
"""
    )


def test_where_a_rule_left_nothing_it_is_named_with_its_count():
    rules = [ThresholdRule(min_score=2.0), CountRule(count=2)]
    text = middle(table_of(ranked_rows(4, num_tokens=[5, 30, 30, 5]), rules))
    assert text == (
        """\
selected  0 rows, 0 response tokens
  corpus                       0 of 4
left out  4 of 4 ranked rows
  0:threshold                  4
  1:count                      0
score     davir; rank correlation with response length +0.00
  best           1.0000  rank 1              5 tokens  0:threshold       rows.jsonl:0
             Row 0.
  best           0.9500  rank 2             30 tokens  0:threshold       rows.jsonl:1
             Row 1.
  best           0.9000  rank 3             30 tokens  0:threshold       rows.jsonl:2
             Row 2.
  worst          0.8500  rank 4              5 tokens  0:threshold       rows.jsonl:3
"""
    )


def shown(rows, rules):
    """Return rank and fate of the borderline rows."""
    lines = [line.split() for line in table_of(rows, rules).splitlines() if line.startswith("  borderline")]
    return [(int(line[3]), line[6]) for line in lines]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([ThresholdRule(max_score=0.72)], [(5, "0:threshold"), (6, "0:threshold"), (7, "selected"), (8, "selected")]),
        ([ThresholdRule(max_score=0.82, min_score=0.74)],
         [(4, "0:threshold"), (5, "selected"), (6, "selected"), (7, "0:threshold"), (8, "0:threshold")]),
        ([FractionRule(fraction=0.5), DifficultyRule(max_quantile=0.5)],
         [(4, "selected"), (6, "selected"), (7, "0:fraction"), (8, "0:fraction")]),
        ([QuotaRule(by="source", count=8), CountRule(count=5)],
         [(4, "selected"), (5, "selected"), (6, "1:count"), (7, "1:count")]),
        ([QuotaRule(by="source", count=8), FractionRule(fraction=1.0)],
         [(7, "selected"), (8, "selected"), (9, "0:quota")]),
        ([DifficultyRule(min_quantile=0.9)], []),
        ([], []),
    ],
)  # fmt: skip
def test_the_cut_is_that_of_the_last_rule_that_cut_the_ranking(rules, expected):
    assert shown(ranked_rows(), rules) == expected


def test_rows_of_a_source_that_is_kept_whole_are_no_side_of_the_cut():
    rows = ranked_rows(source=["a"] * 8 + ["kept"] + ["a"] * 3)
    rules = [KeepSourcesRule(sources=("kept",)), FractionRule(fraction=0.5)]
    assert shown(rows, rules) == [(4, "selected"), (5, "selected"), (6, "1:fraction"), (7, "1:fraction")]
