import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from davir_ray.config import TokensConfig
from davir_ray.corpus.example import Example
from davir_ray.errors import RowError
from davir_ray.schema import Status, View
from davir_ray.tokens.views import sequence_id, sequences
from tests.unit.tokens.conversations import counted, row, says, user, view

PAIR = [View.RESPONSE, View.REJECTED]


def pair(prompt: str, chosen: str, rejected: str) -> Example:
    return Example(messages=(user(prompt), says(chosen)), rejected=(user(prompt), says(rejected)))


def status_of(tokenizer, example, views=(View.RESPONSE,), **config) -> tuple[str, str]:
    with pytest.raises(RowError) as caught:
        sequences(example, tokenizer, TokensConfig(**config), list(views))
    return caught.value.status, caught.value.reason


def test_views_come_in_the_order_asked(load):
    tokenizer, asked = load("smollm2"), [View.REJECTED, View.RESPONSE_ALONE, View.RESPONSE]
    made = sequences(pair("Hello", "Yes", "No"), tokenizer, TokensConfig(), asked)
    assert [one.view for one in made] == asked
    answers = [counted(tokenizer, one) for one in made]
    assert answers == ["No<|im_end|>", "Yes<|im_end|>", "Yes<|im_end|>"]


def test_types_are_those_of_the_engine(load):
    for which in (View.RESPONSE, View.RESPONSE_ALONE):
        made = view(load("smollm2"), row(user("Hello"), says("Yes")), which)
        assert (made.ids.dtype, made.scored.dtype) == (np.int32, np.bool_)


@pytest.mark.parametrize(
    ("example", "status"),
    [
        (row(user("Hello")), Status.NO_RESPONSE_TOKENS),
        (row(user("Hello"), says("")), Status.EMPTY),
        (row(user("Hello"), says(" \n")), Status.EMPTY),
        (row(user("Hello"), says(None)), Status.EMPTY),
        (Example(text=" "), Status.EMPTY),
        (Example(input_ids=(), scored=()), Status.NO_RESPONSE_TOKENS),
        (Example(input_ids=(1, 2), scored=(True, False)), Status.NO_RESPONSE_TOKENS),
        (Example(input_ids=(1, 2), scored=(True,)), Status.BAD_FORMAT),
        (Example(input_ids=(1, -2), scored=(False, True)), Status.BAD_FORMAT),
        (Example(input_ids=(1, 10**6), scored=(False, True)), Status.BAD_FORMAT),
        (Example(input_ids=(1, 2.0), scored=(False, True)), Status.BAD_FORMAT),
        (row(user("Hello"), says("\ud800")), Status.BAD_TEXT),
    ],
)
def test_a_row_with_nothing_to_score_says_why(load, example, status):
    found, reason = status_of(load("smollm2"), example)
    assert found == status
    assert reason


def test_completion_is_what_follows_the_last_user_message(load):
    example = row(user("Hello"), says("Yes"), user("Hello"))
    status, reason = status_of(load("smollm2"), example, score_on="completion")
    assert status == Status.NO_RESPONSE_TOKENS
    assert "follows the last user message" in reason
    assert view(load("smollm2"), example, score_on="last_assistant").scored.any()


def test_a_row_without_a_rejected_response_is_a_bad_format(load):
    assert status_of(load("smollm2"), row(user("Hello"), says("Yes")), PAIR)[0] == Status.BAD_FORMAT


def test_keep_start_cuts_the_end_and_says_so(load):
    tokenizer, example = load("llama3"), row(user("Hello"), says("The quick brown fox jumps."))
    whole = view(tokenizer, example)
    cut = view(tokenizer, example, max_length=len(whole.ids) - 2)
    assert (whole.truncated, cut.truncated) == (False, True)
    assert cut.ids.tolist() == whole.ids[:-2].tolist()
    assert cut.scored.tolist() == whole.scored[:-2].tolist()
    assert not view(tokenizer, example, max_length=len(whole.ids)).truncated


def test_drop_refuses_a_longer_row(load):
    tokenizer, example = load("llama3"), row(user("Hello"), says("Yes"))
    length = len(view(tokenizer, example).ids)
    assert len(view(tokenizer, example, max_length=length, truncation="drop").ids) == length
    status, reason = status_of(tokenizer, example, max_length=length - 1, truncation="drop")
    assert (status, reason) == (Status.TOO_LONG, f"{length} tokens; tokens.max_length is {length - 1}")


def test_a_response_that_is_cut_off_whole_is_no_response(load):
    status, reason = status_of(load("llama3"), row(user("Hello " * 50), says("Yes")), max_length=20)
    assert status == Status.NO_RESPONSE_TOKENS
    assert "tokens.max_length is 20" in reason


def test_the_response_alone_is_cut_where_the_response_is(load):
    tokenizer, example = load("llama3"), row(user("Hello"), says("The quick brown fox jumps."))
    limit = len(view(tokenizer, example).ids) - 3
    made, alone = (
        view(tokenizer, example, which, max_length=limit) for which in (View.RESPONSE, "response_alone")
    )
    assert alone.truncated
    assert alone.ids[alone.scored].tolist() == made.ids[made.scored].tolist()


def test_an_earlier_turn_is_not_part_of_the_response_alone(load):
    tokenizer = load("llama3")
    example = row(user("Hello"), says("Yes"), user("Hello"), says("No"))
    assert counted(tokenizer, view(tokenizer, example, View.RESPONSE_ALONE)) == "No<|eot_id|>"


def test_a_pair_that_truncation_makes_equal_is_refused(load):
    tokenizer, example = load("llama3"), pair("Hello", "Yes and yes and yes", "Yes and yes or no")
    lengths = [len(one.ids) for one in sequences(example, tokenizer, TokensConfig(), PAIR)]
    status, reason = status_of(tokenizer, example, PAIR, max_length=min(lengths) - 6)
    assert status == Status.NO_RESPONSE_TOKENS
    assert "chosen and rejected are the same" in reason


def test_pre_tokenised_rows_keep_their_ids_and_marks(load):
    tokenizer = load("base", template="plain")
    example = Example(input_ids=(5, 6, 7, 8, 9), scored=(True, False, True, True, False))
    made = view(tokenizer, example)
    assert made.ids.tolist() == [5, 6, 7, 8]
    assert made.scored.tolist() == [False, False, True, True]
    alone = view(tokenizer, example, View.RESPONSE_ALONE)
    assert alone.ids.tolist() == [tokenizer.hf.eos_token_id, 7, 8]
    assert alone.scored.tolist() == [False, True, True]


def test_pre_tokenised_rows_without_marks_count_whole(load):
    made = view(load("smollm2"), Example(input_ids=(5, 6, 7)))
    assert made.scored.tolist() == [False, True, True]


def test_the_name_of_a_sequence_never_changes():
    # blake2b(struct.pack("<q3i", 3, 1, 2, 49_151) + b"\x06", digest_size=16)
    ids, scored = np.array([1, 2, 49_151], np.int32), np.array([False, True, True])
    assert sequence_id(ids, scored).hex() == "99c8ad8070dd8770383112cf553f00d3"
    assert sequence_id(ids.astype(np.int64), scored) == sequence_id(ids, scored)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=6), st.data())
def test_different_sequences_have_different_names(items, data):
    other = data.draw(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=6))
    names = [
        sequence_id(np.array([i for i, _ in one], np.int32), np.array([s for _, s in one], bool))
        for one in (items, other)
    ]
    assert (names[0] == names[1]) == (items == other)
