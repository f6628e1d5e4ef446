import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from davir_ray.coreset.rules import CountRule, FractionRule, QuotaRule, ThresholdRule
from davir_ray.coreset.summary import summarise
from davir_ray.schema import SCORED, Status


@st.composite
def scored_tables(draw):
    """A scored table in rank order, rows without a rank strewn in, with any choice of rows."""
    row = st.fixed_dictionaries(
        {
            "score": st.one_of(st.none(), st.floats(-2, 1), st.just(0.5)),
            "source": st.sampled_from(["alpaca", "gsm8k"]),
            "num_tokens": st.integers(1, 9),
            "bad": st.sampled_from([Status.EMPTY, Status.DUPLICATE]),
            "dropped_by": st.sampled_from([None, "0:threshold", "1:fraction"]),
        }
    )
    return table_of(draw(st.lists(row, max_size=50)))


def table_of(rows):
    places = [index for index, row in enumerate(rows) if row["score"] is not None]
    ordered = sorted((rows[index] for index in places), key=lambda row: -row["score"])
    for index, row in zip(places, ordered, strict=True):
        rows[index] = row
    made, rank = [], 0
    for index, row in enumerate(rows):
        has_rank = row["score"] is not None
        rank += has_rank
        dropped_by = row["dropped_by"] if has_rank else None
        made.append(
            {
                "example_id": index.to_bytes(16, "big"),
                "file": "a.jsonl",
                "row": index,
                "source": row["source"],
                "group": row.get("group", ""),
                "status": str(Status.OK if has_rank else row["bad"]),
                "num_tokens": row["num_tokens"] if has_rank else None,
                "score": row["score"],
                "rank": rank if has_rank else None,
                "selected": has_rank and dropped_by is None,
                "dropped_by": dropped_by,
            }
        )
    return pa.Table.from_pylist(made, schema=SCORED)


def scan_of(table, cuts=()):
    edges = [0, *sorted(min(cut, len(table)) for cut in cuts), len(table)]

    def scan(columns):
        for start, stop in itertools.pairwise(edges):
            yield table.select(list(columns)).slice(start, stop - start)

    return scan


@settings(max_examples=50)
@given(scored_tables(), st.lists(st.integers(0, 50), max_size=4))
def test_a_summary_is_what_pandas_counts_however_the_table_is_cut(table, cuts):
    rules = [ThresholdRule(min_score=0.0), FractionRule(fraction=0.5)]
    summary = summarise(scan_of(table, cuts), rules)
    assert summary == summarise(scan_of(table), rules)
    frame = table.to_pandas()
    ranked, selected = frame[frame["rank"].notna()], frame[frame["selected"].astype(bool)]
    assert summary.rows == len(frame) == sum(summary.status.values())
    assert summary.status == frame["status"].value_counts().to_dict()
    assert summary.ranked == len(ranked) == summary.selected + sum(summary.dropped_by.values())
    counted = ranked["dropped_by"].value_counts().to_dict()
    assert summary.dropped_by == {"0:threshold": 0, "1:fraction": 0} | counted
    assert (summary.selected, summary.tokens) == (len(selected), selected["num_tokens"].sum())
    assert summary.ranked_tokens == ranked["num_tokens"].sum()
    shown = [row.rank for row in (*summary.best, *summary.borderline, *summary.worst)]
    assert len(shown) == len(set(shown))
    for name, share in summary.sources.items():
        chosen = selected[selected["source"] == name]
        assert share.rows == (frame["source"] == name).sum()
        assert (share.selected, share.tokens) == (len(chosen), chosen["num_tokens"].sum())
        assert share.share_before == share.rows / len(frame)
        assert share.share_after == (len(chosen) / len(selected) if len(selected) else 0)
    assert set(summary.sources) == set(frame["source"])
    if ranked["score"].nunique() > 1 and ranked["num_tokens"].nunique() > 1:
        expected = stats.spearmanr(ranked["score"], ranked["num_tokens"]).statistic
        assert summary.length_correlation == pytest.approx(expected, abs=1e-12)
    else:
        assert summary.length_correlation is None


def scored(count, chosen):
    rows = [
        {"score": 1 - i / count, "source": "s", "num_tokens": i + 1, "bad": None, "dropped_by": None}
        for i in range(count)
    ]
    for row in rows[chosen:]:
        row["dropped_by"] = "0:count"
    return table_of(rows)


def test_best_worst_and_borderline_rows_are_the_ends_and_the_cut_of_the_ranking():
    summary = summarise(scan_of(scored(20, 8), [5, 8, 18]), [CountRule(count=8)])
    assert [row.rank for row in summary.best] == [1, 2, 3]
    assert [row.rank for row in summary.worst] == [18, 19, 20]
    assert [(row.rank, row.selected) for row in summary.borderline] == [
        (7, True),
        (8, True),
        (9, False),
        (10, False),
    ]
    assert summary.best[0].example_id == "00" * 16
    assert (summary.worst[-1].score, summary.worst[-1].num_tokens) == (1 - 19 / 20, 20)
    assert (summary.worst[-1].file, summary.worst[-1].row) == ("a.jsonl", 19)
    assert summary.length_correlation == -1.0


@pytest.mark.parametrize(
    ("rows", "chosen", "best", "borderline", "worst"),
    [
        (0, 0, [], [], []),
        (2, 0, [1, 2], [], []),
        (2, 1, [1, 2], [], []),
        (5, 1, [1, 2, 3], [], [4, 5]),
        (9, 5, [1, 2, 3], [4, 5, 6], [7, 8, 9]),
        (9, 9, [1, 2, 3], [], [7, 8, 9]),
    ],
)
def test_a_row_is_shown_once_and_a_ranking_without_a_cut_has_no_borderline(
    rows, chosen, best, borderline, worst
):
    summary = summarise(scan_of(scored(rows, chosen)), [CountRule(count=max(chosen, 1))])
    shown = [[row.rank for row in group] for group in (summary.best, summary.borderline, summary.worst)]
    assert shown == [best, borderline, worst]


def test_a_quota_tells_which_groups_lost_most_and_counts_the_others_together():
    rows = [
        {"score": 1 - i / 100, "source": "s", "num_tokens": 1, "bad": None, "dropped_by": "1:quota"}
        | {"group": f"g{min(i, 11):02d}"}
        for i in range(15)
    ]
    rules = [FractionRule(fraction=1.0), QuotaRule(count=1), QuotaRule(by="source", count=1)]
    summary = summarise(scan_of(table_of(rows), [3]), rules)
    counted = summary.dropped_groups["1:quota"]
    assert list(counted.groups.items()) == [("g11", 4), *((f"g{i:02d}", 1) for i in range(9))]
    assert (counted.by, counted.other_groups, counted.other_rows) == ("group", 2, 2)
    assert summary.dropped_groups["2:quota"].groups == {}
    assert summary.dropped_by == {"0:fraction": 0, "1:quota": 15, "2:quota": 0}


def test_a_summary_is_json():
    table = scored(20, 8)
    figures = summarise(scan_of(table), [CountRule(count=8)]).tree()
    assert json.loads(json.dumps(figures)) == figures
    assert figures["sources"]["s"]["share_after"] == 1.0
    assert figures["dropped_by"] == {"0:count": 12}
    assert figures["best"][0] == {
        "example_id": "00" * 16,
        "file": "a.jsonl",
        "row": 0,
        "score": 1.0,
        "num_tokens": 1,
        "rank": 1,
        "selected": True,
        "dropped_by": None,
    }


def test_a_ranking_with_the_lowest_first_has_the_same_correlation():
    frame = scored(20, 8).to_pandas().assign(score=np.linspace(0, 1, 20))
    rising = pa.Table.from_pandas(frame, schema=SCORED, preserve_index=False)
    assert summarise(scan_of(rising), []).length_correlation == 1.0
