import itertools
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from davir_ray.coreset import rank_correlation
from davir_ray.coreset.rank_correlation import RankSample


def ids(count):
    hashes = b"".join(
        blake2b(bytes([i % 256, i // 256 % 256, i // 65536]), digest_size=16).digest() for i in range(count)
    )
    return np.frombuffer(hashes, dtype="S16")


def sample_of(score, length, cuts=(), keys=None):
    sample = RankSample()
    keys = ids(len(score)) if keys is None else keys
    edges = [0, *sorted(min(cut, len(score)) for cut in cuts), len(score)]
    for start, stop in itertools.pairwise(edges):
        sample.add(keys[start:stop], score[start:stop], length[start:stop])
    return sample


def correlation(score, length, cuts=()):
    return sample_of(score, length, cuts).correlation()


@st.composite
def rows_in_order(draw):
    score = st.one_of(st.floats(-5, 1), st.sampled_from([0.0, -0.0, 0.25, 0.5]))
    rows = draw(st.lists(st.tuples(score, st.integers(0, 8)), min_size=2, max_size=60))
    rows.sort(reverse=draw(st.booleans()), key=lambda row: row[0])
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows], dtype=np.int64)


@settings(max_examples=60)
@given(rows_in_order(), st.lists(st.integers(0, 60), max_size=6))
def test_it_is_scipy_s_spearman_however_the_rows_are_cut(rows, cuts):
    score, length = rows
    found = correlation(score, length, cuts)
    assert found == correlation(score, length)  # to the last bit
    if len(set(score.tolist())) == 1 or len(set(length.tolist())) == 1:
        assert found is None
    else:
        assert found == pytest.approx(stats.spearmanr(score, length).statistic, abs=1e-12)


def test_lengths_that_rise_with_the_score_correlate_fully():
    score, length = np.linspace(1, 0, 50), np.arange(50, 0, -1)
    assert correlation(score, length) == 1.0
    assert correlation(score, length[::-1].copy()) == -1.0
    assert correlation(score[::-1].copy(), length[::-1].copy()) == 1.0


def test_a_run_of_ties_may_span_many_parts():
    score = np.repeat([0.9, 0.5, 0.1], [3, 14, 3])
    length = np.random.default_rng(0).integers(1, 9, 20)
    expected = stats.spearmanr(score, length).statistic
    assert correlation(score, length, range(1, 20)) == pytest.approx(expected, abs=1e-12)


def test_nothing_to_correlate_gives_none():
    assert correlation(np.array([]), np.array([], dtype=np.int64)) is None
    assert correlation(np.array([1.0]), np.array([3])) is None


def test_of_many_rows_those_with_the_lowest_ids_are_sampled_however_they_come(monkeypatch):
    monkeypatch.setattr(rank_correlation, "SAMPLE_ROWS", 500)
    rng = np.random.default_rng(1)
    score, length, keys = rng.normal(size=3000), rng.integers(1, 2000, 3000), ids(3000)
    sample = sample_of(score, length, [40, 700, 700, 2999])
    lowest = np.argsort(keys)[:500]
    assert sample.keys.tolist() == keys[lowest].tolist()
    expected = stats.spearmanr(score[lowest], length[lowest]).statistic
    assert sample.correlation() == pytest.approx(expected, abs=1e-12)
    again = sample_of(score[::-1], length[::-1], [1000], keys[::-1])
    assert again.correlation() == sample.correlation()
    assert (len(again), again.is_full) == (500, True)


def test_a_sample_is_close_to_all_rows():
    rng = np.random.default_rng(2)
    score = rng.normal(size=300_000)
    length = (100 + 20 * score + rng.normal(scale=30, size=300_000)).astype(np.int64)
    sample = sample_of(score, length, [100_000])
    assert len(sample) == 100_000
    assert sample.correlation() == pytest.approx(stats.spearmanr(score, length).statistic, abs=0.01)
