import numpy as np
from scipy import stats

from davir_ray.config import ScoreConfig
from davir_ray.schema import View
from davir_ray.scores import SCORES
from davir_ray.scores.score import Measured

COUNT = 20_000
SEQUENTIAL = np.frombuffer(b"".join(i.to_bytes(16, "little") for i in range(COUNT)), dtype="S16")


def draw(ids, seed=0):
    row = Measured({}, {View.RESPONSE: np.ones(len(ids), dtype=np.int64)}, ids)
    return SCORES["random"].compute(row, ScoreConfig(seed=seed))


def test_draws_are_uniform_even_of_ids_that_count_up():
    value = draw(SEQUENTIAL)
    assert value.min() >= 0
    assert value.max() < 1
    assert stats.kstest(value, "uniform").pvalue > 0.01
    assert len(set(value.tolist())) == COUNT


def test_draws_of_neighbours_and_of_other_seeds_are_uncorrelated():
    value = draw(SEQUENTIAL)
    bound = 4 / np.sqrt(COUNT)  # four standard errors
    assert abs(np.corrcoef(value[:-1], value[1:])[0, 1]) < bound
    assert abs(np.corrcoef(value, np.arange(COUNT))[0, 1]) < bound
    for seed in (1, 2, -1):
        assert abs(np.corrcoef(value, draw(SEQUENTIAL, seed))[0, 1]) < bound


def test_a_draw_depends_on_the_id_and_the_seed_alone():
    value = draw(SEQUENTIAL)
    order = np.random.default_rng(0).permutation(COUNT)
    assert np.array_equal(draw(SEQUENTIAL[order]), value[order])
    assert np.array_equal(draw(SEQUENTIAL[7:8]), value[7:8])


def test_a_draw_never_changes_between_versions_and_machines():
    # splitmix64 by hand, in Python integers, over the seed and the two little-endian halves of the id.
    def mix(state):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        return state ^ (state >> 31)

    key = bytes(range(16))
    low, high = (int.from_bytes(half, "little") for half in (key[:8], key[8:]))
    expected = (mix(mix(mix(3) ^ low) ^ high) >> 11) / 2**53
    assert draw(np.array([key], dtype="S16"), seed=3).tolist() == [expected]
    assert mix(0) == 0xE220A8397B1DCDAF  # the first output of the published generator


def test_no_rows_give_no_draws():
    assert draw(SEQUENTIAL[:0]).shape == (0,)
