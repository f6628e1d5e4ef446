import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from davir_ray.logprobs.hf.prefixes import MIN_SHARED, plan_trees


def _ids(*parts):
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])


def _covered(trees, sequences):
    """Rebuild each sequence from header and segments, following parents."""
    rebuilt = {}
    for tree in trees:
        header = np.frombuffer(tree.header, dtype=np.int32)
        for i, segment in enumerate(tree.segments):
            assert segment.parent < i
            start = tree.segments[segment.parent].end if segment.parent >= 0 else len(header)
            assert start == segment.start < segment.end
            for member in segment.members:
                np.testing.assert_array_equal(sequences[member][: len(header)], header)
                np.testing.assert_array_equal(
                    sequences[member][segment.start : segment.end],
                    sequences[segment.members[0]][segment.start : segment.end],
                )
                rebuilt[member] = max(rebuilt.get(member, 0), segment.end)
    return rebuilt


def test_a_header_of_the_whole_call_is_taken_out_once():
    header = np.arange(40)
    sequences = [_ids(header, [100 + i] * 10) for i in range(20)]
    trees = plan_trees(sequences, [45] * 20, 1000)
    assert {tree.header for tree in trees} == {_ids(header).tobytes()}
    assert sum(tree.num_tokens for tree in trees) == 200


def test_a_header_ends_before_the_first_position_that_predicts_a_scored_token():
    sequences = [_ids(np.arange(40), [100 + i] * 10) for i in range(20)]
    trees = plan_trees(sequences, [30] * 20, 1000)
    assert {len(tree.header) for tree in trees} == {30 * 4}


def test_pairs_share_their_prompt_in_one_tree():
    pairs = [_ids([i] * 30, [50 + j] * 7) for i in range(3) for j in range(2)]
    trees = plan_trees(pairs, [29] * 6, 1000)
    assert sorted(tree.num_tokens for tree in trees) == [30 + 7 + 7] * 3


def test_equal_sequences_are_computed_once():
    trees = plan_trees([_ids(np.arange(50))] * 5, [10] * 5, 1000)
    assert [tree.num_tokens for tree in trees] == [50]
    assert sorted(trees[0].segments[0].members) == [0, 1, 2, 3, 4]


def test_a_run_that_is_too_big_is_cut_and_its_prefix_computed_again():
    answers = [_ids([7] * 50, [100 + i] * 30) for i in range(6)]
    trees = plan_trees(answers, [49] * 6, 120)
    assert all(tree.num_tokens <= 120 for tree in trees)
    assert set(_covered(trees, answers)) == set(range(6))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60), st.integers(0, 2), st.integers(0, 60))))
def test_every_sequence_is_covered_to_its_end_whatever_is_shared(shapes):
    sequences = [_ids([a] * n, [9 + b] * m) for a, n, b, m in shapes if n + m]
    if not sequences:
        return
    trees = plan_trees(sequences, [len(ids) - 1 for ids in sequences], 150)
    assert _covered(trees, sequences) == {i: len(ids) for i, ids in enumerate(sequences)}
    for tree in trees:
        assert all(s.end - s.start >= MIN_SHARED for s in tree.segments if len(s.members) > 1)
