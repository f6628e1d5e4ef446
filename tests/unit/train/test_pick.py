import hashlib

import numpy as np
import pytest

from davir_ray.corpus.folds import Fold
from davir_ray.train.pick import CoreSet, Everything, Outside, Sample


def ids(*numbers):
    return np.array([hashlib.blake2b(b"%d" % i, digest_size=16).digest() for i in numbers], dtype="S16")


MANY = ids(*range(2000))
NONE = MANY[:0]


def core_set(ranks):
    """Build a core-set from {example: rank}."""
    keys = ids(*ranks)
    order = np.argsort(keys)
    return CoreSet(keys[order], np.array(list(ranks.values()), dtype=np.int64)[order])


def test_everything_is_picked_and_nothing_ranked():
    assert Everything().ranks(MANY).tolist() == [0] * len(MANY)


@pytest.mark.parametrize("folds", [2, 5])
def test_outside_is_all_that_the_fold_does_not_hold(folds):
    for index in range(folds):
        fold = Fold(index, folds)
        assert np.array_equal(Outside(fold).ranks(MANY) == 0, ~fold.holds(MANY))
        assert set(Outside(fold).ranks(MANY).tolist()) == {0, -1}


def test_of_k_references_each_example_is_unseen_by_exactly_one():
    unseen = np.array([Outside(Fold(index, 3)).ranks(MANY) == -1 for index in range(3)])
    assert (unseen.sum(axis=0) == 1).all()


def test_samples_are_nested_and_of_about_their_share():
    small, large = Sample(0.2).ranks(MANY), Sample(0.6).ranks(MANY)
    assert set(small.tolist()) == set(large.tolist()) == {0, -1}
    assert (large[small == 0] == 0).all()
    assert (small == 0).mean() == pytest.approx(0.2, abs=0.04)
    assert (large == 0).mean() == pytest.approx(0.6, abs=0.05)
    assert (Sample(1.0).ranks(MANY) == 0).all()


def test_an_example_of_a_core_set_has_its_rank_and_any_other_is_left_out():
    picked = core_set({7: 1, 3: 2, 9: 30, 1: 4})
    assert picked.ranks(ids(1, 2, 3, 7, 8, 9, 0)).tolist() == [4, -1, 2, 1, -1, 30, -1]


def test_the_last_of_a_core_set_does_not_stand_for_what_is_missing():
    largest = np.sort(MANY)[-1:]
    picked = CoreSet(largest, np.array([1]))
    assert (picked.ranks(MANY) == 1).sum() == 1
    assert (picked.ranks(MANY) == -1).sum() == len(MANY) - 1


def test_an_empty_core_set_picks_nothing():
    assert CoreSet(NONE, np.zeros(0, dtype=np.int64)).ranks(MANY).tolist() == [-1] * len(MANY)


@pytest.mark.parametrize(
    "pick", [Everything(), Sample(0.5), Outside(Fold(0, 2)), core_set({i: i + 1 for i in range(5)})]
)
def test_repeats_go_together_and_no_examples_have_no_ranks(pick):
    once = pick.ranks(MANY)
    assert once.dtype == np.int64
    assert np.array_equal(pick.ranks(np.repeat(MANY, 3)), np.repeat(once, 3))
    assert pick.ranks(NONE).shape == (0,)
