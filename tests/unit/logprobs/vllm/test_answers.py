"""Reading vLLM's answers: objects with the fields that vLLM 0.32 fills, recorded from its CPU build."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from davir_ray.errors import EngineError
from davir_ray.logprobs.engine import TokenSequence, Wanted
from davir_ray.logprobs.vllm.answers import check_wanted, cut_tail, first_scored, read_asked, read_flat

RANK: Wanted = frozenset({"rank"})


@dataclass
class Flat:
    """The lists of vllm.logprobs.FlatLogprobs, as ids 10 to 14 came back with `prompt_logprobs=0`."""

    start_indices: list[int] = field(default_factory=lambda: [0, 0, 1, 2, 3])
    end_indices: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    token_ids: list[int] = field(default_factory=lambda: [11, 12, 13, 14])
    logprobs: list[float] = field(default_factory=lambda: [-1.5, -2.5, -3.5, -4.5])
    ranks: list[int | None] = field(default_factory=lambda: [1, 7, 300, 100])


@dataclass
class Answer:
    prompt_logprobs: Flat | None = None
    prompt_token_id_logprobs: np.ndarray | None = None


def sequence(*scored: int) -> TokenSequence:
    ids = np.arange(10, 15, dtype=np.int32)
    return TokenSequence(ids, np.isin(np.arange(5), scored))


def test_flat_lists_give_the_scored_tokens_values():
    values = read_flat(Answer(Flat()), sequence(1, 4), frozenset())
    assert values is not None
    assert values.logprobs.dtype == np.float32
    assert values.logprobs.tolist() == [-1.5, -4.5]
    assert (values.rank, values.entropy) == (None, None)


def test_flat_lists_give_ranks_clipped_to_a_byte_where_they_are_wanted():
    values = read_flat(Answer(Flat()), sequence(1, 2, 3, 4), RANK)
    assert values is not None
    assert values.logprobs.tolist() == [-1.5, -2.5, -3.5, -4.5]
    assert values.rank is not None
    assert values.rank.dtype == np.uint8
    assert values.rank.tolist() == [1, 7, 100, 100]


def test_a_rank_that_is_not_there_is_missing_where_it_is_wanted():
    answer = Answer(Flat(ranks=[1, None, 2, 3]))
    assert read_flat(answer, sequence(1, 2), RANK) is None
    assert read_flat(answer, sequence(1, 2), frozenset()) is not None
    assert read_flat(answer, sequence(1, 3), RANK) is not None


def test_flat_lists_with_more_tokens_a_position_give_the_first_which_is_the_sequences_own():
    flat = Flat([0, 0, 2, 4, 6], [0, 2, 4, 6, 8], [11, 0, 12, 0, 13, 0, 14, 0], [-1.0, -9] * 4, [5, 1] * 4)
    values = read_flat(Answer(flat), sequence(2, 3), RANK)
    assert values is not None
    assert values.logprobs.tolist() == [-1.0, -1.0]
    assert values.rank is not None
    assert values.rank.tolist() == [5, 5]


@pytest.mark.parametrize(
    "flat",
    [
        None,
        Flat(start_indices=[0, 0, 1, 2]),
        Flat(logprobs=[]),
        Flat(logprobs=[-1.5, -2.5]),
        Flat(token_ids=[11, 12, 13, 99]),
    ],
)
def test_flat_lists_that_lack_something_are_missing_and_not_zero(flat):
    assert read_flat(Answer(flat), sequence(1, 4), frozenset()) is None


def test_asked_values_start_at_the_first_scored_position():
    found = np.array([[-2.0], [-3.0], [-4.0]], np.float32)
    values = read_asked(Answer(prompt_token_id_logprobs=found), sequence(2, 4))
    assert values is not None
    assert values.logprobs.tolist() == [-2.0, -4.0]


@pytest.mark.parametrize("found", [None, np.zeros((2, 1)), np.zeros((4, 1)), np.zeros((3, 2)), np.zeros(3)])
def test_asked_values_of_another_shape_are_missing_and_not_zero(found):
    assert read_asked(Answer(prompt_token_id_logprobs=found), sequence(2, 4)) is None


def test_tokens_after_the_last_scored_one_are_not_sent():
    cut = cut_tail(sequence(1, 2))
    assert cut.ids.tolist() == [10, 11, 12]
    assert cut.scored.tolist() == [False, True, True]
    assert first_scored(cut) == 1


def test_entropies_are_refused_with_the_engine_that_gives_them():
    check_wanted(RANK)
    with pytest.raises(EngineError, match="transformers gives entropies"):
        check_wanted(frozenset({"rank", "entropy"}))
