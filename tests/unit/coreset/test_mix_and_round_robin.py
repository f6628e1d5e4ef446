"""The rules `mix` and `round_robin`, against plain Python over all rows at once."""

from fractions import Fraction
from math import floor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from davir_ray.coreset.rules import MixRule, RoundRobinRule
from davir_ray.coreset.rules.length_quota import length_bands
from davir_ray.ids import keys_of, uniform_draw
from davir_ray.schema import ID


def parts_of(table, size):
    """Return `rows` as rules get it, a part at a time."""
    return lambda *columns: (table.slice(at, size).select(list(columns)) for at in range(0, len(table), size))


def ranked(count, seed=0, **columns):
    random = np.random.default_rng(seed)
    table = {
        "rank": pa.array(range(1, count + 1)),
        "example_id": pa.array([random.bytes(16) for _ in range(count)], ID),
        "num_tokens": pa.array(random.integers(1, 60, count), pa.int32()),
        **columns,
    }
    return pa.table(table)


def kept(rule, table, size=7):
    return np.concatenate([*rule.keep(parts_of(table, size)), np.zeros(0, bool)])


def mixed_by_hand(table, share, random, seed, bands):
    """Keep within each band the first rows, then of the others those with the smallest draws."""
    lengths = np.array(table["num_tokens"])
    counts = np.bincount(lengths)
    band, draw = length_bands(counts, bands)[lengths], uniform_draw(keys_of(table["example_id"]), seed)
    keep = np.zeros(len(table), bool)
    for one in range(bands):
        rows = np.flatnonzero(band == one)
        wanted = min(len(rows), max(1, floor(Fraction(str(share)) * len(rows)))) if len(rows) else 0
        chance = floor(Fraction(str(random)) * wanted)
        best, rest = rows[: wanted - chance], rows[wanted - chance :]
        keep[best] = True
        keep[rest[np.argsort(draw[rest])[:chance]]] = True
    return keep


@given(
    count=st.integers(0, 80),
    share=st.sampled_from([0.05, 0.29, 0.5, 1.0]),
    random=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    bands=st.sampled_from([1, 2, 5]),
    seed=st.integers(-1, 3),
    size=st.sampled_from([1, 7, 100]),
)
def test_a_mix_is_what_plain_python_takes(count, share, random, bands, seed, size):
    table = ranked(count, seed=count)
    rule = MixRule(fraction=share, random=random, bands=bands, seed=seed)
    assert kept(rule, table, size).tolist() == mixed_by_hand(table, share, random, seed, bands).tolist()


@given(count=st.integers(1, 80), wanted=st.integers(1, 100), bands=st.sampled_from([1, 3, 10]))
def test_a_mix_of_a_number_keeps_exactly_that(count, wanted, bands):
    table = ranked(count, seed=count)
    assert kept(MixRule(count=wanted, bands=bands), table).sum() == min(count, wanted)


def test_without_chance_a_mix_is_the_best_and_with_nothing_else_it_does_not_look_at_the_rank():
    table = ranked(50)
    assert np.flatnonzero(kept(MixRule(count=10, random=0), table)).tolist() == list(range(10))
    drawn = kept(MixRule(count=10, random=1), table)
    turned = kept(MixRule(count=10, random=1), table.take(list(range(49, -1, -1))))
    assert drawn.tolist() == turned[::-1].tolist()
    assert kept(MixRule(count=10, random=1, seed=1), table).tolist() != drawn.tolist()


@pytest.mark.parametrize("rule", [MixRule, RoundRobinRule])
@pytest.mark.parametrize("sizes", [{}, {"fraction": 0.1, "count": 3}])
def test_a_size_is_given_once(rule, sizes):
    with pytest.raises(ValueError, match="either fraction or count"):
        rule(**sizes)


def in_turn_by_hand(columns, wanted):
    taken = []
    left = {name: sorted(range(len(values)), key=lambda i: -values[i]) for name, values in columns.items()}
    while len(taken) < wanted:
        for name in columns:
            while left[name] and left[name][0] in taken:
                left[name].pop(0)
            if left[name] and len(taken) < wanted:
                taken.append(left[name].pop(0))
    return sorted(taken)


@given(
    values=st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=1, max_size=40),
    wanted=st.integers(1, 50),
    size=st.sampled_from([1, 7, 100]),
)
def test_subtasks_take_rows_in_turn(values, wanted, size):
    columns = {name: [float(row[at]) for row in values] for at, name in enumerate("abc")}
    table = ranked(len(values), **{f"score_{name}": pa.array(column) for name, column in columns.items()})
    rule = RoundRobinRule(count=wanted).over(["a", "b", "c"])
    expected = in_turn_by_hand(columns, min(wanted, len(values)))
    assert np.flatnonzero(kept(rule, table, size)).tolist() == expected


def test_one_subtask_may_take_all():
    table = ranked(6, score_a=pa.array([0.0] * 6), score_b=pa.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    rule = RoundRobinRule(fraction=0.5, subtasks=("b",)).over(["a", "b"])
    assert np.flatnonzero(kept(rule, table)).tolist() == [3, 4, 5]


def test_a_subtask_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="c is none of the target's, which has a, b"):
        RoundRobinRule(count=1, subtasks=("c",)).over(["a", "b"])
    with pytest.raises(ValueError, match="which these scores have: rose, less"):
        RoundRobinRule(count=1).over([])
