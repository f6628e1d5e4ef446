import hashlib

import numpy as np
import pytest

from davir_ray.corpus.folds import Fold, in_sample
from davir_ray.ids import partition_of

COUNT = 10_000
IDS = np.array([hashlib.blake2b(b"%d" % i, digest_size=16).digest() for i in range(COUNT)], dtype="S16")


def deviations(count, share, total=COUNT):
    """How many standard deviations a count lies from what chance expects."""
    return abs(count - share * total) / (share * (1 - share) * total) ** 0.5


@pytest.mark.parametrize("folds", [2, 3, 5, 8])
def test_each_example_is_in_exactly_one_of_about_even_folds(folds):
    inside = np.array([Fold(index, folds).holds(IDS) for index in range(folds)])
    assert (inside.sum(axis=0) == 1).all()
    assert max(deviations(count, 1 / folds) for count in inside.sum(axis=1)) < 4


def test_a_fold_is_told_from_the_id_alone():
    shuffled = np.random.default_rng(0).permutation(COUNT)
    inside = Fold(1, 3).holds(IDS)
    assert np.array_equal(Fold(1, 3).holds(IDS[shuffled]), inside[shuffled])
    assert np.array_equal(Fold(1, 3).holds(IDS[::7]), inside[::7])


def test_folds_and_samples_do_not_change_from_release_to_release():
    # fold: bytes 4 to 8 of the id as a big-endian number, modulo; sample: bytes 8 to 12 below the share of 2**32
    ids = np.array([bytes.fromhex("aaaaaaaa 00000007 3fffffff bbbbbbbb"), b"\xff" * 16], dtype="S16")
    assert [Fold(index, 4).holds(ids).tolist() for index in (0, 3)] == [[False, False], [True, True]]
    assert Fold(1, 3).holds(ids).tolist() == [True, False]
    assert in_sample(ids, 0.25).tolist() == [True, False]
    assert in_sample(ids, 0.2499).tolist() == [False, False]


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9])
def test_a_sample_has_about_its_share(fraction):
    assert deviations(in_sample(IDS, fraction).sum(), fraction) < 4


def test_a_larger_sample_holds_every_smaller_one_and_the_whole_is_all():
    shares = [0.05, 0.1, 0.3, 0.7, 1.0]
    samples = [in_sample(IDS, share) for share in shares]
    for smaller, larger in zip(samples, samples[1:], strict=False):
        assert (larger | ~smaller).all()
        assert larger.sum() > smaller.sum()
    assert samples[-1].all()


def test_folds_samples_and_partitions_have_nothing_to_do_with_each_other():
    marks = [Fold(0, 4).holds(IDS), in_sample(IDS, 0.25), partition_of(IDS, 4) == 0]
    for i, one in enumerate(marks):
        for other in marks[:i]:
            assert deviations((one & other).sum(), 1 / 16) < 4


def test_no_examples_are_in_no_fold():
    none = IDS[:0]
    assert Fold(0, 2).holds(none).shape == (0,)
    assert in_sample(none, 0.5).shape == (0,)
