"""Blocks of inputs: what one task takes at once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from davir_ray.cluster.ray_exchange import (
    BLOCKS,
    INPUTS_PER_BLOCK,
    ROWS_PER_PIECE,
    ROWS_PER_TASK,
    block_of,
    blocks_of,
    partitions_for,
    rows_per_task,
)


@given(st.lists(st.integers(0, 5), max_size=250), st.integers(1, 400))
def test_blocks_hold_every_input_once_and_no_more_rows_than_asked_but_in_one_input(rows, most):
    blocks = blocks_of(rows, most)
    assert [index for block in blocks for index in block] == list(range(len(rows)))
    for block in blocks:
        assert 1 <= len(block) <= INPUTS_PER_BLOCK
        assert len(block) == 1 or sum(rows[index] for index in block) <= most


def test_many_tiny_files_are_cut_by_their_number():
    assert [len(block) for block in blocks_of([1] * 250, most=1000)] == [100, 100, 50]


@given(st.integers(1, 3000))
def test_a_corpus_is_cut_into_enough_blocks_for_a_cluster_and_into_no_more_than_twice_as_many(splits):
    blocks = blocks_of([50_000] * splits)
    assert len(blocks) >= min(splits, BLOCKS)
    assert all(len(block) * 50_000 <= max(rows_per_task(splits * 50_000), 50_000) for block in blocks)
    assert len(blocks) <= 2 * max(BLOCKS, splits * 50_000 / rows_per_task(splits * 50_000))


@given(st.integers(1, 10**11))
def test_a_large_corpus_is_cut_into_pieces_that_stay_out_of_the_driver(rows):
    assert partitions_for(rows) * rows_per_task(rows) >= rows
    assert rows <= ROWS_PER_TASK or rows / partitions_for(rows) ** 2 > ROWS_PER_PIECE / 5
    assert rows_per_task(rows) == ROWS_PER_TASK or rows > 125_000_000


@given(st.lists(st.integers(1, 30), min_size=2, max_size=60), st.integers(1, 40))
def test_neighbouring_blocks_would_not_fit_into_one(rows, most):
    sizes = [sum(rows[index] for index in block) for block in blocks_of(rows, most)]
    assert all(one + other > most for one, other in zip(sizes, sizes[1:], strict=False))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 40))
def test_an_input_is_found_in_the_block_that_has_it(rows, most):
    blocks = blocks_of(rows, most)
    inputs = np.arange(len(rows))
    assert all(index in blocks[block] for index, block in zip(inputs, block_of(inputs, blocks), strict=True))
