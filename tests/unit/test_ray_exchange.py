"""Blocks of inputs: what one task takes at once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from davir_ray.ray_exchange import block_of, blocks_of


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 40))
def test_blocks_hold_every_input_once_and_no_more_rows_than_asked_but_in_one_input(rows, most):
    blocks = blocks_of(rows, most)
    assert [index for block in blocks for index in block] == list(range(len(rows)))
    for block in blocks:
        assert len(block) == 1 or (len(block) > 1 and sum(rows[index] for index in block) <= most)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=60), st.integers(1, 40))
def test_neighbouring_blocks_would_not_fit_into_one(rows, most):
    sizes = [sum(rows[index] for index in block) for block in blocks_of(rows, most)]
    assert all(one + other > most for one, other in zip(sizes, sizes[1:], strict=False))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 40))
def test_an_input_is_found_in_the_block_that_has_it(rows, most):
    blocks = blocks_of(rows, most)
    inputs = np.arange(len(rows))
    assert all(index in blocks[block] for index, block in zip(inputs, block_of(inputs, blocks), strict=True))
