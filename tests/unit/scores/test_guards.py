"""What happens to losses that a formula cannot use. Every warning of NumPy is an error here."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from davir_ray.config import ScoreConfig
from davir_ray.schema import Need, View
from davir_ray.scores import SCORES
from davir_ray.scores.score import Measured
from tests.measured import losses_table

ANY = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 1e-300, 1e308, -1e308, np.inf, -np.inf, np.nan]))
VIEWS = (View.RESPONSE, View.RESPONSE_ALONE, View.REJECTED)
NEEDS = [Need("loss", role, view) for role in ("base", "reference") for view in VIEWS]
COMPARED = {("loss", "base"), ("loss", "reference")}
OF_LOSSES = {name: one for name, one in SCORES.items() if {need[:2] for need in one.needs} <= COMPARED}


def one_row(losses, tokens):
    return Measured(
        {need: losses_table([loss]) for need, loss in zip(NEEDS, losses, strict=True)},
        {view: np.array([count]) for view, count in zip(VIEWS, tokens, strict=True)},
        np.array([b"0123456789abcdef"]),
    )


def score(name, row, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return float(SCORES[name].compute(row, ScoreConfig(**settings))[0])


@given(st.lists(ANY, min_size=6, max_size=6), st.lists(st.integers(0, 5), min_size=3, max_size=3))
def test_any_measurements_give_a_finite_number_or_nan_and_no_warning(losses, tokens):
    for name in OF_LOSSES:
        value = score(name, one_row(losses, tokens))
        assert np.isfinite(value) or np.isnan(value)


@given(st.sampled_from(NEEDS), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_loss_that_is_not_finite_leaves_the_scores_that_need_it_without_a_value(need, bad):
    losses = [bad if one == need else 4.0 for one in NEEDS]
    for name, one in OF_LOSSES.items():
        assert np.isnan(score(name, one_row(losses, [2, 2, 2]))) == (need in one.needs), name


def test_a_view_without_tokens_leaves_the_scores_that_need_it_without_a_value():
    for index, view in enumerate(View):
        tokens = [0 if i == index else 2 for i in range(3)]
        for name, one in OF_LOSSES.items():
            missing = view in {needed.view for needed in one.needs} or (name, view) == (
                "length",
                View.RESPONSE,
            )
            assert np.isnan(score(name, one_row([4.0] * 6, tokens))) == missing, (name, view)


@pytest.mark.parametrize(("name", "divisor"), [("davir", 0), ("lobass", 0), ("ifd", 1)])
def test_a_mean_below_min_loss_is_not_divided_by(name, divisor):
    def at(mean_loss, **settings):
        losses = [4.0] * 6
        losses[divisor] = mean_loss * 2  # NEEDS[0] and NEEDS[1] are the base's response and response_alone
        return score(name, one_row(losses, [2, 2, 2]), **settings)

    assert NEEDS[divisor] == Need("loss", "base", list(View)[divisor])
    assert np.isnan(at(0.0009))
    assert np.isfinite(at(0.001))
    assert np.isfinite(at(0.0009, min_loss=0.0))
    assert np.isnan(at(0.5, min_loss=0.6))
    assert np.isnan(at(0.0, min_loss=0.0))
    assert np.isnan(at(-1.0, min_loss=0.0))


def test_scores_that_divide_by_no_loss_do_not_mind_small_ones():
    tiny = one_row([1e-9] * 6, [1, 1, 1])
    for name in set(OF_LOSSES) - {"davir", "lobass", "ifd"}:
        assert np.isfinite(score(name, tiny)), name


def test_a_perplexity_that_overflows_is_no_score():
    assert np.isnan(score("perplexity", one_row([710.0] * 6, [1, 1, 1])))
    assert np.isfinite(score("perplexity", one_row([700.0] * 6, [1, 1, 1])))
