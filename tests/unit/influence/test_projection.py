"""Projection by random signs: the same on any machine and in any blocks, and lengths and angles kept."""

import numpy as np
import pytest
import torch

from davir_ray.influence.projection import BLOCK, Projection, signs


def gradients(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, size, generator=generator) for name, size in (("a", 700), ("b", 1300))}


def project(rows, dimensions, seed=0, block=BLOCK):
    projection = Projection(len(next(iter(rows.values()))), torch.device("cpu"), dimensions, seed)
    for name, some in rows.items():
        projection.add(name, some, block)
    return projection.values()


def test_signs_are_these_on_every_machine():
    found = signs("layer.weight", 5, 2, 300, 0)
    assert found.shape == (2, 300)
    assert found[:, :8].int().tolist() == [[1, -1, -1, 1, 1, 1, 1, 1], [-1, -1, 1, -1, -1, -1, -1, -1]]


def test_signs_are_the_same_in_any_blocks():
    whole = signs("a", 0, 40, 520, 3)
    parts = [signs("a", at, 8, 520, 3) for at in range(0, 40, 8)]
    assert torch.equal(whole, torch.cat(parts))


def test_signs_are_fair_and_of_their_own_for_each_coordinate_parameter_and_seed():
    one = signs("a", 0, 200, 1024, 0)
    assert one.abs().eq(1).all()
    assert abs(float(one.mean())) < 0.01
    # Fair coins: the largest of 19,900 products of two coordinates lies within 5 standard deviations.
    products = (one @ one.t() / 1024).fill_diagonal_(0)
    assert products.abs().max() < 5.5 / 1024**0.5
    for other in (signs("b", 0, 200, 1024, 0), signs("a", 0, 200, 1024, 1)):
        assert abs(float((one * other).mean())) < 0.01


def test_a_projection_is_the_product_with_the_signs():
    rows = gradients(3)
    whole = torch.cat([signs(name, 0, some.shape[1], 256, 7) for name, some in rows.items()])
    expected = torch.cat(list(rows.values()), 1).double() @ whole.double() / 16
    torch.testing.assert_close(project(rows, 256, seed=7), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("block", [1, 64, 5000])
def test_blocks_and_the_order_of_parameters_do_not_matter(block):
    rows = gradients(2)
    turned = dict(reversed(rows.items()))
    torch.testing.assert_close(project(turned, 256, block=block), project(rows, 256), rtol=0, atol=1e-4)


def test_cosines_are_kept_as_johnson_and_lindenstrauss_say():
    """For signs, the variance of <Px, Py> is at most (|x|^2 |y|^2 + <x, y>^2) / D."""
    dimensions = 2048
    rows = gradients(40)
    whole = torch.nn.functional.normalize(torch.cat(list(rows.values()), 1).double())
    whole[1:20] += whole[0]  # some that are alike
    whole = torch.nn.functional.normalize(whole)
    split = {"a": whole[:, :700], "b": whole[:, 700:]}
    kept = project(split, dimensions)
    exact, found = whole @ whole.t(), kept @ kept.t()
    deviations = (found - exact) / ((1 + exact.square()) / dimensions).sqrt()
    above = torch.triu_indices(40, 40, 1)
    some = deviations[above[0], above[1]].numpy()
    assert np.abs(some).max() < 5
    assert 0.7 < some.std() < 1.3
