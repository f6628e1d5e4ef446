import numpy as np
import pytest

from davir_ray.errors import RowError
from davir_ray.tokens.masks import covered, tokens_of


def pieces(*texts: str) -> tuple[str, np.ndarray]:
    """A text and the characters of its tokens, one a piece."""
    ends = np.cumsum([len(text) for text in texts])
    return "".join(texts), np.stack([ends - [len(text) for text in texts], ends], axis=1)


def found(*texts: str, answer: str) -> tuple[str, ...]:
    text, chars = pieces(*texts)
    start = text.index(answer)
    first, stop = tokens_of(text, chars, start, start + len(answer))
    return texts[first:stop]


def test_whole_tokens_count():
    assert found("Q:", "\n", "an", "swer", "<end>", "\n", answer="answer<end>") == ("an", "swer", "<end>")


def test_a_space_before_the_first_word_belongs_to_it():
    assert found("Q:", " ans", "wer", answer="answer") == (" ans", "wer")


def test_a_line_break_that_merges_header_and_answer_is_the_header_s():
    text, chars = pieces("Q:", "\n\n", "x", "<end>")
    assert tokens_of(text, chars, 3, 5) == (2, 3)


def test_a_line_break_that_merges_the_answer_s_end_with_the_template_counts():
    text, chars = pieces("Q:", "x", ".\n", "User")
    assert tokens_of(text, chars, 2, 4) == (1, 3)


def test_a_space_that_ends_the_answer_and_begins_the_template_s_word_does_not_count():
    text, chars = pieces("Q:", "x", " User")
    assert tokens_of(text, chars, 2, 4) == (1, 2)


def test_a_token_with_printed_characters_of_both_is_an_error():
    for parts, answer in ((("Q", ":x", "y"), "xy"), (("Q", "x", "y|"), "xy")):
        with pytest.raises(RowError, match="one token holds both"):
            found(*parts, answer=answer)


def test_all_tokens_of_a_split_character_count():
    offsets = np.array([[0, 1], [1, 2], [1, 2], [1, 2], [2, 5]])
    assert tokens_of("Qxend", covered(offsets), 1, 2) == (1, 4)


def test_spaces_that_offsets_leave_out_go_to_the_next_token():
    # A byte-level tokenizer with trim_offsets: "a", " b", "  ", " c".
    offsets = np.array([[0, 1], [2, 3], [5, 5], [6, 7]])
    assert covered(offsets).tolist() == [[0, 1], [1, 3], [3, 5], [5, 7]]
