"""Selection rules against a plain pandas re-implementation, on random tables cut into random parts."""

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davir_ray.coreset.rules import (
    CountRule,
    DifficultyRule,
    FractionRule,
    KeepSourcesRule,
    LengthQuotaRule,
    NearDuplicatesRule,
    QuotaRule,
    ThresholdRule,
    TokenBudgetRule,
)
from davir_ray.coreset.rules.best import share_of
from davir_ray.coreset.rules.choose import Selection, choose
from davir_ray.coreset.rules.difficulty import order_statistics, sortable
from davir_ray.coreset.rules.length_quota import length_bands
from davir_ray.errors import RecipeError
from tests.unit.coreset.plain_rules import plain_choose

SIGNATURES = np.random.default_rng(0).integers(0, 2**32, (6, 16), dtype=np.uint32)
"""Any two of these differ in all values, so a row is a near duplicate only of rows with the same one."""
NEAR_DUPLICATES = NearDuplicatesRule(num_perm=16, threshold=0.8)

FRACTIONS = st.one_of(
    st.floats(0.001, 1.0), st.sampled_from([0.06, 0.07, 0.1, 0.29, 0.3, 0.57, 0.58, 1 / 3, 0.7, 1.0])
)
SCORES = st.one_of(st.floats(-2, 1), st.sampled_from([0.0, -0.0, 0.5]))
LOSSES = st.one_of(st.none(), st.floats(0, 100), st.sampled_from([6.0, 12.0]))


@st.composite
def frames(draw):
    """Rows in rank order: by score, highest first, ties by id."""
    row = st.tuples(
        SCORES,
        st.binary(min_size=16, max_size=16),
        st.sampled_from(["alpaca", "gsm8k", "dolly"]),
        st.sampled_from(["", "a", "b"]),
        st.integers(1, 12),
        LOSSES,
        st.integers(0, len(SIGNATURES) - 1),
    )
    rows = draw(st.lists(row, max_size=60))
    rows.sort(key=lambda values: (-values[0], values[1]))
    names = ["score", "example_id", "source", "group", "num_tokens", "base_loss", "signature"]
    frame = pd.DataFrame(rows, columns=names)
    return frame.assign(rank=np.arange(1, len(rows) + 1))


def table_of(frame):
    return pa.table(
        {
            "example_id": pa.array(frame["example_id"].tolist(), pa.binary(16)),
            "source": pa.array(frame["source"].tolist(), pa.string()),
            "group": pa.array(frame["group"].tolist(), pa.string()),
            "num_tokens": pa.array(frame["num_tokens"].tolist(), pa.int32()),
            "base_loss": pa.array([None if pd.isna(x) else x for x in frame["base_loss"]], pa.float64()),
            "score": pa.array(frame["score"].tolist(), pa.float64()),
            "rank": pa.array(frame["rank"].tolist(), pa.int64()),
            NEAR_DUPLICATES.token_column.name: pa.array(
                [SIGNATURES[i].tobytes() for i in frame["signature"]], pa.binary()
            ),
        }
    )


def scan_of(frame, cuts=()):
    table = table_of(frame)
    edges = [0, *sorted(min(cut, len(frame)) for cut in cuts), len(frame)]

    def scan(columns):
        assert set(columns) <= set(table.column_names)
        for start, stop in itertools.pairwise(edges):
            yield table.select(list(columns)).slice(start, stop - start)

    return scan


def chosen(rules, frame, cuts=()):
    """Return (selected, dropped_by) of all rows."""
    selections = choose(rules, scan_of(frame, cuts))
    assert len(selections) == len(cuts) + 1
    selected = np.concatenate([selection.selected for selection in selections])
    dropped_by = np.concatenate([selection.dropped_by for selection in selections])
    assert selected.dtype == bool
    assert dropped_by.dtype == np.int16
    return selected, dropped_by


@st.composite
def quantiles(draw):
    low, high = sorted(draw(st.lists(FRACTIONS, min_size=2, max_size=2, unique=True)))
    return DifficultyRule(min_quantile=draw(st.sampled_from([0.0, low])), max_quantile=high)


RULE = st.one_of(
    st.builds(FractionRule, fraction=FRACTIONS),
    st.builds(CountRule, count=st.integers(1, 40)),
    st.builds(TokenBudgetRule, tokens=st.integers(1, 200)),
    st.builds(ThresholdRule, min_score=SCORES),
    st.builds(ThresholdRule, max_score=SCORES),
    st.builds(QuotaRule, by=st.sampled_from(["group", "source"]), fraction=FRACTIONS),
    st.builds(QuotaRule, by=st.sampled_from(["group", "source"]), count=st.integers(1, 10)),
    st.builds(LengthQuotaRule, bands=st.integers(2, 8), fraction=FRACTIONS),
    st.builds(KeepSourcesRule, sources=st.sampled_from([("gsm8k",), ("gsm8k", "dolly"), ("absent",)])),
    quantiles(),
    st.just(NEAR_DUPLICATES),
)
CUTS = st.lists(st.integers(0, 60), max_size=5)


def reaches_none_with_loss(rules, frame):
    """Tell whether a difficulty rule would see rows, but no base loss."""
    for index, rule in enumerate(rules):
        if rule.type == "difficulty":
            before = plain_choose(rules[:index], frame) < 0
            kept = {name for one in rules if one.type == "keep_sources" for name in one.sources}
            seen = frame[before & ~frame["source"].isin(kept).to_numpy(dtype=bool)]
            if len(seen) and seen["base_loss"].isna().all():
                return True
    return False


@given(frames(), st.lists(RULE, max_size=4), CUTS)
def test_any_rules_on_any_parts_do_what_a_plain_implementation_does(frame, rules, cuts):
    if reaches_none_with_loss(rules, frame):
        with pytest.raises(RecipeError, match="no row has a base loss"):
            choose(rules, scan_of(frame, cuts))
        return
    selected, dropped_by = chosen(rules, frame, cuts)
    assert dropped_by.tolist() == plain_choose(rules, frame).tolist()
    assert (selected == (dropped_by == -1)).all()  # kept + dropped = all, each drop with one reason


@pytest.mark.parametrize(
    ("fraction", "rows", "share"),
    [(0.06, 50, 3), (0.29, 100, 29), (0.57, 100, 57), (0.1, 30, 3), (0.06, 10, 1), (1.0, 7, 7), (0.5, 0, 0)],
)
def test_a_share_is_the_floor_of_the_product_as_it_is_written_and_at_least_one(fraction, rows, share):
    assert share_of(fraction, rows) == share


def ranked(count, **columns):
    frame = pd.DataFrame({"score": np.linspace(1, 0, count), "rank": np.arange(1, count + 1)})
    frame["example_id"] = [i.to_bytes(16, "big") for i in range(count)]
    defaults = {"source": "alpaca", "group": "", "num_tokens": 10, "base_loss": 5.0, "signature": 0}
    return frame.assign(**(defaults | columns))


def test_rows_of_equal_score_are_cut_in_the_order_in_which_they_come():
    selected, _ = chosen([CountRule(count=3)], ranked(6, score=0.5), [2])
    assert selected.tolist() == [True, True, True, False, False, False]


def test_a_token_budget_ends_at_the_first_row_that_does_not_fit():
    selected, dropped_by = chosen([TokenBudgetRule(tokens=10)], ranked(5, num_tokens=[4, 5, 2, 1, 1]), [3])
    assert selected.tolist() == [True, True, False, False, False]  # 4 + 5 + 2 > 10, so the ones do not follow
    assert dropped_by.tolist() == [-1, -1, 0, 0, 0]


@settings(max_examples=30)
@given(frames(), st.integers(1, 200), CUTS)
def test_a_token_budget_is_never_exceeded_and_one_more_row_would_exceed_it(frame, tokens, cuts):
    selected, _ = chosen([TokenBudgetRule(tokens=tokens)], frame, cuts)
    used = frame["num_tokens"][selected].sum()
    assert used <= tokens
    if not selected.all():
        assert used + frame["num_tokens"][~selected].iloc[0] > tokens


def test_a_threshold_includes_its_bounds():
    rows = ranked(4, score=[0.75, 0.5, 0.25, -0.0])
    assert chosen([ThresholdRule(min_score=0.25, max_score=0.5)], rows)[0].tolist() == [
        False,
        True,
        True,
        False,
    ]
    assert chosen([ThresholdRule(min_score=0.0)], rows)[0].all()


def test_kept_sources_are_all_selected_and_use_nothing_of_a_budget():
    sources = ["gsm8k", "alpaca", "gsm8k", "alpaca", "alpaca", "gsm8k"]
    rows = ranked(6, source=sources)
    keep, best = KeepSourcesRule(sources=("gsm8k",)), CountRule(count=2)
    for rules in ([keep, best], [best, keep]):
        selected, dropped_by = chosen(rules, rows, [2, 4])
        assert selected.tolist() == [True, True, True, True, False, True]
        assert dropped_by[4] == rules.index(best)


def test_a_rule_sees_only_what_the_rules_before_it_kept():
    rules = [ThresholdRule(max_score=0.5), FractionRule(fraction=0.5)]
    selected, dropped_by = chosen(
        rules, ranked(9), [4]
    )  # scores 1, 7/8, ... 0: five of them reach the fraction
    assert dropped_by.tolist() == [0, 0, 0, 0, -1, -1, 1, 1, 1]
    assert selected.sum() == 2


def test_each_group_keeps_its_own_best_and_a_small_one_at_least_a_row():
    rows = ranked(11, group=["a"] * 5 + ["b"] + ["a"] * 5)
    selected, _ = chosen([QuotaRule(fraction=0.3)], rows, [3, 7])
    assert np.flatnonzero(selected).tolist() == [0, 1, 2, 5]


def test_large_groups_keep_exactly_their_first_rows():
    rows = ranked(6000, group=np.where(np.arange(6000) % 3 == 0, "a", "b"))
    selected, _ = chosen([QuotaRule(count=700)], rows, [2500])
    for name in "ab":
        in_group = rows["group"].to_numpy() == name
        assert np.array_equal(np.flatnonzero(selected & in_group), np.flatnonzero(in_group)[:700])


def test_bands_of_distinct_lengths_hold_equally_many_rows():
    lengths = np.zeros(101, dtype=np.int64)
    lengths[1:] = 1
    assert np.bincount(length_bands(lengths, 8)[1:]).tolist() == [12, 13, 12, 13, 12, 13, 12, 13]


def test_a_length_quota_keeps_the_lengths_of_the_corpus_where_the_score_prefers_short_answers():
    rows = ranked(800, num_tokens=np.arange(1, 801))  # the best row is the shortest
    by_score, _ = chosen([FractionRule(fraction=0.1)], rows)
    by_band, _ = chosen([LengthQuotaRule(bands=8, fraction=0.1)], rows, [100, 350])
    assert rows["num_tokens"][by_score].mean() == 40.5
    assert by_band.sum() == 80
    assert rows["num_tokens"][by_band].mean() == pytest.approx(rows["num_tokens"].mean(), rel=0.12)


@given(st.lists(st.integers(1, 12), max_size=60), st.integers(2, 8))
def test_bands_rise_with_length_from_the_first_to_the_last(drawn, bands):
    lengths = np.bincount(drawn)
    band = length_bands(lengths, bands)[lengths > 0]
    assert (np.diff(band) >= 0).all()
    assert ((band >= 0) & (band < bands)).all()


def test_difficulty_leaves_out_the_easiest_and_the_hardest_share():
    rows = ranked(10, base_loss=np.array([30, 10, 90, 20, 50, 40, 100, 60, 80, 70], dtype=float))
    selected, _ = chosen([DifficultyRule(min_quantile=0.2, max_quantile=0.9)], rows, [4])
    assert sorted(rows["base_loss"][selected]) == [30, 40, 50, 60, 70, 80, 90]


def test_difficulty_is_of_the_mean_loss_a_token():
    rows = ranked(3, base_loss=[30.0, 20.0, 10.0], num_tokens=[30, 10, 1])  # 1, 2 and 10 nats a token
    assert chosen([DifficultyRule(max_quantile=0.67)], rows)[0].tolist() == [True, True, True]
    assert chosen([DifficultyRule(max_quantile=0.66)], rows)[0].tolist() == [True, True, False]


@settings(max_examples=50)
@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=80), st.data())
def test_order_statistics_are_those_of_a_sort(values, data):
    places = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=3))
    keys = sortable(np.array(values))
    half = len(values) // 2
    found = order_statistics(lambda: iter([keys[:half], keys[half:]]), places)
    expected = sortable(np.sort(np.array(values)))
    assert found == [int(expected[place]) for place in places]


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_sortable_integers_compare_as_their_floats_do(one, other):
    a, b = (int(key) for key in sortable(np.array([one, other])))
    assert (a < b, a == b) == (one < other, one == other)


def test_a_loss_of_minus_zero_is_as_easy_as_one_of_zero():
    assert np.ptp(sortable(np.array([0.0, -0.0]))) == 0


def test_without_rules_or_with_nothing_but_kept_sources_every_row_is_selected():
    for rules in ([], [KeepSourcesRule(sources=("gsm8k",))]):
        assert chosen(rules, ranked(4), [1])[0].all()


def test_a_corpus_without_ranked_rows_gives_empty_selections():
    rules = [FractionRule(fraction=0.5), QuotaRule(count=1), LengthQuotaRule(fraction=0.5), DifficultyRule()]
    assert chosen(rules, ranked(0), [0, 0])[0].tolist() == []
    assert choose(rules, lambda columns: iter(())) == []


def test_a_selection_takes_a_few_bits_a_row_whatever_the_rules_left_out():
    codes = np.random.default_rng(0).integers(-2, 3, 100_000).astype(np.int16)
    selection = Selection.of(codes)
    assert selection.codes.tolist() == codes.tolist()
    assert len(selection.packed) * 8 < 5 * len(codes)
    assert selection.count() == np.count_nonzero(codes < 0)
