import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from davir_ray.drift.causes import SIDE, Cause, beside, moved


def side(*rows):
    """Make a SIDE table of (letter, rank, selected[, loss[, score]])."""
    made = []
    for letter, rank, selected, *rest in rows:
        loss, score = [*rest, *[1.0, 0.5][len(rest) :]]
        made.append(
            {
                "example_id": letter.encode() * 16,
                "rank": rank,
                "selected": selected,
                "base_loss": loss,
                "reference_loss": None,
                "score": score,
            }
        )
    return pa.Table.from_pylist(made, schema=SIDE)


def causes(before, after, *changed):
    found = moved(*beside(before, after), changed)
    return dict(found.came), dict(found.went)


def test_new_and_gone_rows_are_data_whatever_else_changed():
    before, after = side(("a", 1, True)), side(("b", 1, True, 9.0))
    for changed in ((), ("base",), ("select", "tokens")):
        assert causes(before, after, *changed) == ({Cause.DATA: 1}, {Cause.DATA: 1})


def test_a_row_that_got_or_lost_its_score_says_so():
    before, after = side(("a", 1, True), ("b", None, False)), side(("a", None, False), ("b", 1, True))
    assert causes(before, after, "select") == ({Cause.STATUS: 1}, {Cause.STATUS: 1})


def test_rows_that_change_places_with_nothing_changed_are_others():
    before, after = side(("a", 1, True), ("b", 2, False)), side(("a", 2, False), ("b", 1, True))
    assert causes(before, after) == ({Cause.OTHERS: 1}, {Cause.OTHERS: 1})


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        (("base",), Cause.MODEL),
        (("reference", "select"), Cause.MODEL),
        (("tokens",), Cause.MEASURING),
        (("engine", "score"), Cause.MEASURING),
        (("tokens", "base"), Cause.MODEL),
        (("corpus",), Cause.OTHERS),
    ],
)
def test_a_row_measured_otherwise_counts_for_what_measured_it(changed, cause):
    before, after = side(("a", 1, True, 1.0)), side(("a", 1, False, 2.0))
    assert causes(before, after, *changed) == ({}, {cause: 1})


def test_a_row_that_the_new_model_says_the_same_of_moved_for_another_reason():
    before, after = side(("a", 1, True)), side(("a", 2, False))
    assert causes(before, after, "reference") == ({}, {Cause.OTHERS: 1})
    assert causes(before, after, "reference", "select") == ({}, {Cause.RULE: 1})


def test_another_score_of_equal_losses_counts_for_the_model_only_under_one_formula():
    before, after = side(("a", 1, True, 1.0, 0.5)), side(("a", 2, False, 1.0, 0.1))
    assert causes(before, after, "base") == ({}, {Cause.MODEL: 1})
    assert causes(before, after, "base", "score") == ({}, {Cause.RULE: 1})


def test_of_repeats_the_one_with_a_rank_stands_for_all():
    before = side(("a", None, False), ("a", 1, True), ("a", None, False))
    found = moved(*beside(before, side(("a", 1, True), ("a", None, False))), ())
    assert (found.before, found.after, found.both, found.selected_both) == (1, 1, 1, 1)
    assert found.came == found.went == {}


def test_an_empty_night_has_no_rows():
    found = moved(*beside(side(), side(("a", 1, True))), ())
    assert (found.before, found.after, found.both) == (0, 1, 0)
    assert moved(*beside(side(), side()), ()).after == 0


@st.composite
def tables(draw):
    letters = draw(st.lists(st.sampled_from("abcdefgh"), unique=True))
    ranks = draw(st.permutations(range(1, len(letters) + 1)))
    rows = [(one, draw(st.sampled_from([rank, None]))) for one, rank in zip(letters, ranks, strict=True)]
    return [
        (one, rank, rank is not None and draw(st.booleans()), draw(st.sampled_from([1.0, 2.0])))
        for one, rank in rows
    ]


@given(tables(), tables(), st.sets(st.sampled_from(["base", "tokens", "score", "select", "corpus"])))
def test_counts_add_up_and_do_not_depend_on_the_order_of_rows(before, after, changed):
    found = moved(*beside(side(*before), side(*after)), changed)
    one, other = ({row[0] for row in rows if row[2]} for rows in (before, after))
    assert sum(found.came.values()) == len(other - one)
    assert sum(found.went.values()) == len(one - other)
    assert found.selected_both == len(one & other)
    assert found.both == len({row[0] for row in before} & {row[0] for row in after})
    assert moved(*beside(side(*before[::-1]), side(*after[::-1])), changed) == found


@given(tables(), tables())
def test_each_row_stands_beside_itself(before, after):
    one, other = beside(side(*before), side(*after))
    ids = sorted({row[0] for row in before} | {row[0] for row in after})
    for night, rows in ((one, before), (other, after)):
        ranks = {row[0]: row[1] or 0 for row in rows}
        assert night.rank.tolist() == [ranks.get(letter, 0) for letter in ids]
        assert night.there.tolist() == [letter in ranks for letter in ids]
        assert np.isnan(night.losses[:, 0]).tolist() == [letter not in ranks for letter in ids]
