"""DavIR-DPO against DPO, against the DavIR score, and against the paper's expression in plain floats."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from davir_ray.config import ScoreConfig
from davir_ray.schema import View
from davir_ray.scores.davir import DAVIR
from davir_ray.scores.score import BASE, REFERENCE, Measured
from davir_ray.train.losses import LEAST_NATS, davir_dpo_loss, davir_ratio
from tests.measured import losses_table

BETAS = (0.1, 2.0, 10.0)
CHOSEN, REJECTED = (-110.0, -20.0, -3.5, -61.0), (-90.0, -45.0, -7.0, -60.0)
FROZEN_CHOSEN, FROZEN_REJECTED = (-120.0, -18.0, -5.0, -60.0), (-80.0, -44.0, -9.0, -30.0)
PAIRS = (CHOSEN, REJECTED, FROZEN_CHOSEN, FROZEN_REJECTED)

nats = st.floats(-500.0, -0.5)
betas = st.floats(0.05, 20.0)


def tensor(values, **options):
    return torch.tensor(values, dtype=torch.float64, **options)


def loss(chosen, rejected, frozen_chosen, frozen_rejected, beta):
    sides = (tensor(one) for one in (chosen, rejected, frozen_chosen, frozen_rejected))
    return davir_dpo_loss(*sides, beta)


def bracket(c, r, fc, fr, beta):
    """What stands in the sigmoid in section 1.3 of the methods, for one pair."""
    return beta * (c - fc) / abs(fc) - beta * (r - fr) / abs(fr)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("beta", BETAS)
def test_a_policy_equal_to_the_frozen_one_has_a_loss_of_ln_2(beta):
    value = loss(FROZEN_CHOSEN, FROZEN_REJECTED, FROZEN_CHOSEN, FROZEN_REJECTED, beta)
    assert value.tolist() == pytest.approx([math.log(2)] * 4, rel=1e-15)


def test_the_loss_of_a_pair_worked_out_by_hand():
    # the chosen side gained 10 of 40 nats, the rejected one lost 5 of 50: 2 * (0.25 + 0.1) = 0.7
    assert loss([-30.0], [-55.0], [-40.0], [-50.0], 2.0).item() == pytest.approx(math.log(1 + math.exp(-0.7)))


@pytest.mark.parametrize("beta", BETAS)
def test_each_pair_has_the_loss_of_the_paper_s_expression(beta):
    expected = [-math.log(sigmoid(bracket(*pair, beta))) for pair in zip(*PAIRS, strict=True)]
    value = loss(*PAIRS, beta)
    assert value.shape == (4,)
    assert value.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("beta", BETAS)
def test_gradients_are_those_of_the_paper_s_expression(beta):
    policy = [tensor(one, requires_grad=True) for one in PAIRS[:2]]
    davir_dpo_loss(*policy, tensor(FROZEN_CHOSEN), tensor(FROZEN_REJECTED), beta).sum().backward()
    weights = [sigmoid(-bracket(*pair, beta)) for pair in zip(*PAIRS, strict=True)]
    by_chosen = [-beta * w / abs(fc) for w, fc in zip(weights, FROZEN_CHOSEN, strict=True)]
    by_rejected = [beta * w / abs(fr) for w, fr in zip(weights, FROZEN_REJECTED, strict=True)]
    assert policy[0].grad.tolist() == pytest.approx(by_chosen, rel=1e-12)
    assert policy[1].grad.tolist() == pytest.approx(by_rejected, rel=1e-12)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("side", [0, 1])
def test_gradients_are_the_slopes_of_the_loss(beta, side):
    policy = [tensor(one, requires_grad=True) for one in PAIRS[:2]]
    davir_dpo_loss(*policy, tensor(FROZEN_CHOSEN), tensor(FROZEN_REJECTED), beta).sum().backward()
    step = 1e-4
    for pair in range(4):
        moved = []
        for sign in (1, -1):
            sides = [list(one) for one in PAIRS]
            sides[side][pair] += sign * step
            moved.append(loss(*sides, beta).sum().item())
        slope = (moved[0] - moved[1]) / (2 * step)
        assert policy[side].grad[pair].item() == pytest.approx(slope, rel=1e-6)


def test_no_gradient_flows_into_the_frozen_log_probabilities():
    sides = [tensor(one, requires_grad=True) for one in PAIRS]
    davir_dpo_loss(*sides, 2.0).sum().backward()
    assert [side.grad is None for side in sides] == [False, False, True, True]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("nats_of_all", [4.0, 137.0])
def test_where_all_responses_have_the_same_nats_it_is_dpo_with_another_beta(beta, nats_of_all):
    frozen = [-nats_of_all] * 4
    c, r, f = tensor(CHOSEN), tensor(REJECTED), tensor(frozen)
    dpo = -torch.log(torch.sigmoid(beta / nats_of_all * ((c - f) - (r - f))))
    assert loss(CHOSEN, REJECTED, frozen, frozen, beta).tolist() == pytest.approx(dpo.tolist(), rel=1e-12)


def test_where_responses_differ_in_nats_no_beta_makes_it_dpo():
    logits = -torch.log(torch.expm1(loss(*PAIRS, 1.0)))
    c, r, fc, fr = map(tensor, PAIRS)
    betas = logits / ((c - fc) - (r - fr))
    assert max(betas) > 2 * min(betas)


@settings(max_examples=50)
@given(nats, nats, nats, nats, st.floats(0.05, 3.0))
def test_swapping_the_sides_turns_the_sign_in_the_sigmoid(c, r, fc, fr, beta):
    x = bracket(c, r, fc, fr, beta)
    one, other = (
        loss([a], [b], [fa], [fb], beta).item() for a, b, fa, fb in ((c, r, fc, fr), (r, c, fr, fc))
    )
    # -log sigmoid(x) and -log sigmoid(-x) differ by x
    assert other - one == pytest.approx(x, rel=1e-9, abs=1e-9)


@settings(max_examples=50)
@given(nats, nats, nats, nats, betas, st.floats(1.0, 100.0))
def test_the_scale_of_one_side_s_log_probabilities_changes_nothing(c, r, fc, fr, beta, scale):
    one = loss([c], [r], [fc], [fr], beta).item()
    assert loss([c * scale], [r], [fc * scale], [fr], beta).item() == pytest.approx(one, rel=1e-9, abs=1e-12)
    assert loss([c], [r * scale], [fc], [fr * scale], beta).item() == pytest.approx(one, rel=1e-9, abs=1e-12)


@settings(max_examples=50)
@given(nats, nats, nats, nats, betas, st.floats(0.1, 50.0))
def test_a_likelier_chosen_side_or_an_unlikelier_rejected_one_lowers_the_loss(c, r, fc, fr, beta, more):
    before = loss([c], [r], [fc], [fr], beta).item()
    # where the sigmoid is saturated the change is below the last digit
    saturated = abs(bracket(c, r, fc, fr, beta)) > 30
    for after in (loss([c + more], [r], [fc], [fr], beta), loss([c], [r - more], [fc], [fr], beta)):
        assert after.item() < before or (saturated and after.item() <= before)


def test_the_ratio_is_the_davir_score_with_the_frozen_policy_as_base():
    nats = {BASE: -np.array(FROZEN_CHOSEN), REFERENCE: -np.array(CHOSEN)}
    losses = {need: losses_table(one) for need, one in nats.items()}
    ids = np.array([bytes([65 + i]) * 16 for i in range(4)], dtype="S16")
    measured = Measured(losses, {View.RESPONSE: np.array([40, 7, 2, 31])}, ids)
    score = DAVIR.compute(measured, ScoreConfig())
    assert davir_ratio(tensor(CHOSEN), tensor(FROZEN_CHOSEN)).tolist() == pytest.approx(score, rel=1e-12)
    assert score[0] == pytest.approx(1 / 12)


def test_a_pair_s_loss_depends_on_that_pair_alone_and_stays_finite_far_out():
    whole = loss(*PAIRS, 10.0)
    for pair in range(4):
        assert loss(*[one[pair : pair + 1] for one in PAIRS], 10.0).item() == whole[pair].item()
    far = loss([-1e4, -1.0], [-1.0, -1e4], [-1.0, -1.0], [-1.0, -1.0], 10.0)
    assert far.tolist() == pytest.approx([10 * 9999, 0.0])


def test_a_response_that_the_frozen_policy_is_sure_of_cannot_own_a_step():
    sure, policy = tensor([0.0, -1e-6, -0.05]), tensor([0.0, -0.5, -1.0]).requires_grad_()
    ratio = davir_ratio(policy, sure)
    ratio.sum().backward()
    assert torch.isfinite(ratio).all()
    assert policy.grad.tolist() == pytest.approx([1 / LEAST_NATS] * 3)
