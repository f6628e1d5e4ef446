import numpy as np

from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.hash_engine import HashEngine


def _sequences(count, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        length = int(rng.integers(2, 40))
        scored = rng.random(length) < 0.6
        scored[0], scored[-1] = False, True
        made.append(TokenSequence(rng.integers(0, 50_000, length).astype(np.int32), scored))
    return made


def test_each_scored_token_gets_one_negative_finite_value():
    sequences = _sequences(200)
    for sequence, values in zip(sequences, HashEngine("a").logprobs(sequences), strict=True):
        assert values.dtype == np.float32
        assert values.shape == (sequence.scored.sum(),)
        assert np.isfinite(values).all()
        assert (values < 0).all()


def test_values_do_not_depend_on_the_rest_of_the_call():
    sequences = _sequences(50)
    together = HashEngine("a").logprobs(sequences)
    backwards = HashEngine("a").logprobs(sequences[::-1])[::-1]
    for sequence, first, second in zip(sequences, together, backwards, strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, HashEngine("a").logprobs([sequence])[0])


def test_a_value_depends_on_the_tokens_before_it_and_not_on_those_after():
    ids = np.arange(10, dtype=np.int32)
    scored = np.ones(10, dtype=bool)
    scored[0] = False
    changed = ids.copy()
    changed[5] = 99
    first, second = HashEngine("a").logprobs([TokenSequence(ids, scored), TokenSequence(changed, scored)])
    np.testing.assert_array_equal(first[:4], second[:4])
    assert (first[4:] != second[4:]).all()


def test_two_models_disagree():
    sequence = _sequences(1)[0]
    assert (HashEngine("a").logprobs([sequence])[0] != HashEngine("b").logprobs([sequence])[0]).all()


def test_values_are_logarithms_of_uniform_numbers():
    ids = np.arange(100_001, dtype=np.int32) % 7
    scored = np.ones(len(ids), dtype=bool)
    scored[0] = False
    uniform = np.exp(HashEngine("a").logprobs([TokenSequence(ids, scored)])[0].astype(np.float64))
    share, _ = np.histogram(uniform, bins=10, range=(0, 1))
    # Ten bins of 10,000 expected each; the standard deviation of a bin is 95.
    assert np.abs(share - 10_000).max() < 500


def test_token_values_are_the_same_log_probabilities_with_ranks_and_entropies_beside_them():
    sequences = _sequences(300)
    engine, wanted = HashEngine("a"), frozenset({"rank", "entropy"})
    found = engine.token_values(sequences, wanted)
    for values, logprobs in zip(found, engine.logprobs(sequences), strict=True):
        np.testing.assert_array_equal(values.logprobs, logprobs)
        assert values.rank.shape == values.entropy.shape == logprobs.shape
        assert (values.rank.dtype, values.entropy.dtype) == (np.uint8, np.float32)
    ranks, entropies = (np.concatenate([getattr(one, name) for one in found]) for name in ("rank", "entropy"))
    assert set(ranks.tolist()) == set(range(1, 101))
    assert (entropies > 0).all()
    assert 0.9 < entropies.mean() < 1.1
    again = HashEngine("a").token_values(sequences[::-1], wanted)[::-1]
    np.testing.assert_array_equal(ranks, np.concatenate([one.rank for one in again]))
    (bare,) = engine.token_values(sequences[:1], frozenset())
    assert (bare.rank, bare.entropy) == (None, None)
