"""Each formula against numbers worked out by hand, and the identities that hold between them."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from davir_ray.config import ScoreConfig
from davir_ray.schema import Need, View
from davir_ray.scores import SCORES
from davir_ray.scores.score import BASE, BASE_ALONE, REFERENCE, Measured
from tests.measured import losses_table

CONFIG = ScoreConfig()
NEEDS = [Need("loss", role, view) for role in ("base", "reference") for view in View]
COMPARED = {("loss", "base"), ("loss", "reference")}
OF_LOSSES = {name: one for name, one in SCORES.items() if {need[:2] for need in one.needs} <= COMPARED}


def ids(count):
    raw = b"".join(i.to_bytes(4, "big") * 4 for i in range(count))
    return np.frombuffer(raw, dtype="S16")


def measured(losses, tokens):
    """Build measurements from {need: summed nats} and {view: tokens}; what is not named is missing."""
    count = len(next(iter(tokens.values())))
    return Measured(
        {need: losses_table(losses.get(need, [np.nan] * count)) for need in NEEDS},
        {view: np.array(tokens.get(view, [0] * count), dtype=np.int64) for view in View},
        ids(count),
    )


def score(name, given_measurements, config=CONFIG):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = SCORES[name].compute(given_measurements, config)
    assert value.dtype == np.float64
    assert value.shape == given_measurements.example_id.shape
    return value


ONE = measured(
    {
        BASE: [12.0],
        REFERENCE: [9.0],
        BASE_ALONE: [10.0],
        Need("loss", "base", View.REJECTED): [20.0],
        Need("loss", "reference", View.REJECTED): [22.0],
    },
    {View.RESPONSE: [6], View.RESPONSE_ALONE: [4], View.REJECTED: [5]},
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("davir", 0.25),  # (12 - 9) / 12
        ("lobass", 0.25),
        ("rho_sum", 3.0),
        ("rho_mean", 0.5),  # 3 / 6 tokens
        ("ifd", 0.8),  # (12 / 6) / (10 / 4)
        ("ifd_ppl", np.exp(-0.5)),  # exp(2 - 2.5)
        ("base_loss", 2.0),
        ("reference_loss", 1.5),
        ("perplexity", np.exp(2.0)),
        ("margin", 5.0),  # (12 - 9) - (20 - 22)
        ("length", 6.0),
    ],
)
def test_a_formula_gives_the_value_worked_out_by_hand(name, value):
    assert score(name, ONE) == pytest.approx([value], rel=1e-15)


def test_every_score_of_losses_has_its_name_and_needs_exactly_what_changes_it():
    for name, one in OF_LOSSES.items():
        assert one.name == name
        used = {need for need in NEEDS if not np.array_equal(score(name, without(need)), score(name, ONE))}
        assert used == set(one.needs), name


def without(need):
    columns = {**ONE.columns, need: losses_table([np.nan])}
    return Measured(columns, ONE.num_tokens, ONE.example_id)


losses = hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(0.5, 1000))
pairs = losses.flatmap(
    lambda base: st.tuples(
        st.just(base),
        hnp.arrays(np.float64, len(base), elements=st.floats(0.5, 1000)),
        hnp.arrays(np.int64, len(base), elements=st.integers(1, 100)),
    )
)


def two(base, reference, tokens):
    return measured({BASE: base, REFERENCE: reference}, {View.RESPONSE: tokens})


@settings(max_examples=25)
@given(pairs)
def test_a_reference_equal_to_the_base_gives_zero(drawn):
    base, _, tokens = drawn
    for name in ("davir", "lobass", "rho_sum", "rho_mean"):
        assert (score(name, two(base, base, tokens)) == 0).all()


@settings(max_examples=25)
@given(pairs)
def test_doubling_both_losses_does_not_change_davir(drawn):
    base, reference, tokens = drawn
    once = score("davir", two(base, reference, tokens))
    assert np.array_equal(once, score("davir", two(2 * base, 2 * reference, tokens)))


@settings(max_examples=25)
@given(pairs)
def test_davir_of_sums_is_davir_of_means(drawn):
    base, reference, tokens = drawn
    sums = (base - reference) / base
    assert score("davir", two(base, reference, tokens)) == pytest.approx(sums, rel=1e-12, abs=1e-12)


@settings(max_examples=25)
@given(pairs)
def test_dividing_by_either_loss_ranks_the_same(drawn):
    base, reference, tokens = drawn
    over_base = score("davir", two(base, reference, tokens))
    over_reference = (base - reference) / reference
    apart = np.abs(over_base[:, None] - over_base) > 1e-9
    assert (np.sign(over_base[:, None] - over_base) == np.sign(over_reference[:, None] - over_reference))[
        apart
    ].all()


def test_perplexity_ranks_as_base_loss_does_and_ifd_unlike_ifd_ppl():
    given_prompt, alone = [2.0, 1.0], [4.0, 1.5]
    m = measured(
        {BASE: given_prompt, BASE_ALONE: alone}, {View.RESPONSE: [1, 1], View.RESPONSE_ALONE: [1, 1]}
    )
    assert np.argsort(score("perplexity", m)).tolist() == np.argsort(score("base_loss", m)).tolist()
    assert score("ifd", m) == pytest.approx([0.5, 2 / 3])
    assert score("ifd_ppl", m) == pytest.approx([np.exp(-2.0), np.exp(-0.5)])
    three = measured(
        {BASE: [0.1, 3.0], BASE_ALONE: [0.3, 4.0]}, {View.RESPONSE: [1, 1], View.RESPONSE_ALONE: [1, 1]}
    )
    assert np.argsort(score("ifd", three)).tolist() != np.argsort(score("ifd_ppl", three)).tolist()


@settings(max_examples=25)
@given(pairs, st.integers(0, 29))
def test_a_row_s_score_depends_on_that_row_alone(drawn, index):
    index %= len(drawn[0])
    whole, single = two(*drawn), two(*(array[index : index + 1] for array in drawn))
    for name in ("davir", "rho_sum", "rho_mean", "base_loss", "reference_loss", "perplexity", "length"):
        assert np.array_equal(score(name, whole)[index : index + 1], score(name, single), equal_nan=True)
