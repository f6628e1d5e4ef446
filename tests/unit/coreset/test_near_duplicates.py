import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davir_ray.coreset.rules import NearDuplicatesRule
from davir_ray.coreset.rules.near_duplicates import KeptRows, bands, signatures

RULE = NearDuplicatesRule()


def shingles(ids, size):
    size = min(size, len(ids))
    return {tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)}


def jaccard(one, other, size=RULE.shingle):
    one, other = shingles(one.tolist(), size), shingles(other.tolist(), size)
    return len(one & other) / len(one | other)


def document(rng, length):
    return rng.integers(0, 50_000, length).astype(np.int32)


def with_changes(rng, ids, changes):
    ids = ids.copy()
    ids[rng.choice(len(ids), changes, replace=False)] = rng.integers(50_000, 60_000, changes)
    return ids


def walk(documents, rule=RULE, cuts=()):
    values = signatures(documents, rule)
    column = pa.array([row.tobytes() for row in values], pa.binary())
    edges = [0, *cuts, len(documents)]
    parts = [pa.table({rule.token_column.name: column[a:b]}) for a, b in itertools.pairwise(edges)]
    masks = list(rule.keep(lambda *columns: (part.select(columns) for part in parts)))
    assert [len(mask) for mask in masks] == [len(part) for part in parts]
    return np.concatenate(masks)


def test_the_share_of_equal_values_estimates_the_jaccard_similarity_of_shingle_sets():
    rng = np.random.default_rng(1)
    rule = NearDuplicatesRule(num_perm=1024)
    for changes in (0, 5, 20, 60):
        one = document(rng, 400)
        other = with_changes(rng, one, changes)
        a, b = signatures([one, other], rule)
        true = jaccard(one, other)
        # four standard errors of a mean of 1024 coin flips
        assert np.mean(a == b) == pytest.approx(true, abs=4 * np.sqrt(true * (1 - true) / 1024) + 1e-12)


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=6), st.integers(1, 6))
def test_signatures_are_equal_exactly_where_the_shingle_sets_are(rows, size):
    documents = [np.array(row, dtype=np.int32) for row in rows]
    values = signatures(documents, NearDuplicatesRule(shingle=size, num_perm=64))
    assert values.dtype == np.uint32
    assert values.shape == (len(rows), 64)
    for one, a in zip(rows, values, strict=True):
        for other, b in zip(rows, values, strict=True):
            assert np.array_equal(a, b) == (shingles(one, size) == shingles(other, size))


def test_a_signature_depends_on_its_row_alone():
    rng = np.random.default_rng(2)
    documents = [document(rng, int(length)) for length in rng.integers(1, 200, 20)]
    values = signatures(documents, RULE)
    assert np.array_equal(signatures(documents[7:8], RULE)[0], values[7])
    assert np.array_equal(signatures(documents[::-1], RULE), values[::-1])


def test_the_best_ranked_of_near_duplicates_is_kept_however_the_rows_are_cut():
    rng = np.random.default_rng(3)
    originals = [document(rng, 300) for _ in range(20)]
    documents = [*originals, *(with_changes(rng, one, 2) for one in originals), *originals]
    expected = [True] * 20 + [False] * 40
    for cuts in ((), (1, 20, 33), (0, 60)):
        assert walk(documents, cuts=cuts).tolist() == expected


def test_what_was_dropped_stands_for_nothing():
    # b is near a, c is near b but not near a: a is kept, b goes, and c stays since b is no longer there.
    rng = np.random.default_rng(4)
    a = document(rng, 500)
    b = with_changes(rng, a, 16)
    c = with_changes(rng, b, 16)
    assert min(jaccard(a, b), jaccard(b, c)) > 0.7
    assert jaccard(a, c) < 0.57
    rule = NearDuplicatesRule(threshold=0.64, num_perm=1024)
    assert walk([a, b, c], rule).tolist() == [True, False, True]
    assert walk([b, a, c], rule).tolist() == [True, False, False]


def test_every_dropped_row_is_similar_enough_to_a_kept_one_and_few_pairs_are_missed():
    rng = np.random.default_rng(5)
    documents = []
    for _ in range(60):
        one = document(rng, 120)
        documents += [one, *(with_changes(rng, one, int(changes)) for changes in rng.integers(0, 12, 4))]
    values = signatures(documents, RULE)
    kept = walk(documents)
    similar = np.mean(values[:, None] == values[None], axis=2)
    best = np.array([similar[i, :i][kept[:i]].max(initial=0) for i in range(len(documents))])
    assert (best[~kept] >= RULE.threshold).all()  # nothing is dropped that is not estimated to be near
    missed = np.count_nonzero(kept & (best >= RULE.threshold))
    assert missed <= 0.1 * np.count_nonzero(best >= RULE.threshold)
    assert 60 <= kept.sum() < len(documents)


@pytest.mark.parametrize("num_perm", [16, 128, 1024])
@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.5, 0.8, 0.9, 0.99, 0.999])
def test_bands_find_pairs_at_the_threshold_or_are_as_short_as_can_be(threshold, num_perm):
    count, size = bands(threshold, num_perm)
    assert 2 <= count * size <= num_perm
    assert 1 - (1 - threshold**size) ** count >= 0.9 or (count, size) == (num_perm, 1)


def test_a_row_exactly_at_the_threshold_goes_and_one_below_it_stays():
    kept = np.arange(16, dtype=np.uint32)
    rule = NearDuplicatesRule(threshold=0.75, num_perm=16)
    for equal, stays in ((12, False), (11, True)):
        rows = KeptRows(rule)
        assert rows.add(kept)
        assert rows.add(np.where(kept < equal, kept, 99).astype(np.uint32)) == stays


def test_rows_shorter_than_a_shingle_are_alike_only_if_they_are_equal():
    rows = [[1, 2], [1, 2], [1, 2, 3], [2, 1], [7], [7]]
    assert walk([np.array(row, dtype=np.int32) for row in rows]).tolist() == [
        True,
        False,
        True,
        True,
        True,
        False,
    ]
