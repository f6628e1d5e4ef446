"""Tokens and their losses as lines: what stands together, what is coloured how, and what never reaches a terminal."""

import re

import numpy as np
import pytest

from davir_ray.cli.token_lines import (
    DIFFERENCE,
    LOSS,
    as_dict,
    coloured_lines,
    table_lines,
    token_rows,
)
from davir_ray.foreign_text import shown
from davir_ray.runs.token_losses import ModelTokens, TokenRow
from davir_ray.tokens.pieces import pieces


def decode(ids):
    """Decode bytes, as a byte-level tokenizer does."""
    return bytes(ids).decode(errors="replace")


def stripping(ids):
    """Decode words, and drop the space in front, as Llama 2's tokenizer does."""
    return "".join(f" {'abc'[one]}" for one in ids).removeprefix(" ")


def row_of(prompt: str, response: str, **models) -> TokenRow:
    ids = np.frombuffer((prompt + response).encode(), np.uint8).astype(np.int32)
    counts = np.arange(len(ids)) >= len(prompt.encode())
    title = {"example_id": "ab" * 16, "id": "mine", "file": "a.jsonl", "row": 3, "view": "response"}
    return TokenRow(title, ids, counts, models)


def measured(losses, **more) -> ModelTokens:
    values = {"losses": np.array(losses, np.float32), **more}
    return ModelTokens(float(values["losses"].sum()), values)


def texts(response: str) -> list[str]:
    row = row_of("a", response)
    return [one.text for one in pieces(row.ids, row.counts, decode) if one.counts]


def plain(line: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", line)


def test_a_letter_of_several_tokens_stands_together():
    assert texts("xé東😀y") == ["x", "é", "東", "😀", "y"]


def test_pieces_of_letters_stand_alone_where_no_letter_comes_of_them():
    ids = np.array([97, 0xE2, 0x82, 98, 0xF0], np.int32)
    cut = list(pieces(ids, np.array([False, True, True, True, True]), decode))
    assert [(one.first, one.stop, one.text) for one in cut[1:]] == [
        (1, 2, "\ufffd"),
        (2, 3, "\ufffd"),
        (3, 4, "b"),
        (4, 5, "\ufffd"),
    ]


def test_a_replacement_character_of_the_text_keeps_the_rest_apart():
    assert texts("\ufffdab")[-2:] == ["a", "b"]


def test_a_space_that_the_tokenizer_drops_in_front_is_kept():
    ids, counts = np.array([0, 1, 2], np.int32), np.array([False, True, True])
    assert [one.text for one in pieces(ids, counts, stripping)] == ["a", " b", " c"]


def test_context_and_what_counts_come_in_turns():
    ids, counts = np.frombuffer(b"abcdef", np.uint8).astype(np.int32), np.array([0, 1, 0, 0, 1, 1], bool)
    cut = [(one.counts, one.text) for one in pieces(ids, counts, decode)]
    assert cut == [(False, "a"), (True, "b"), (False, "cd"), (True, "e"), (True, "f")]


@pytest.mark.parametrize(
    ("scale", "value", "colour"),
    [
        (LOSS, 0.0, 34),
        (LOSS, 0.1, 148),
        (LOSS, 4.9, 208),
        (LOSS, 80.0, 196),
        (DIFFERENCE, -3.0, 33),
        (DIFFERENCE, 0.0, 252),
        (DIFFERENCE, 3.0, 203),
    ],
)
def test_a_step_of_a_scale_begins_at_its_bound(scale, value, colour):
    assert scale.paint("x", value) == f"\x1b[48;5;{colour};38;5;16mx\x1b[0m"


def test_the_text_is_coloured_by_each_model_and_by_their_difference():
    row = row_of("Say: ", "ab\nc", base=measured([3, 0, 0, 0]), reference=measured([0, 0, 0, 6]))
    lines = list(coloured_lines(row, decode))
    assert lines[0] == f"--- a.jsonl:3 example {'ab' * 16} response: 4 of 9 tokens count"
    assert lines[1] == "base        3.000 nats, 0.750 a token over 4 tokens"
    assert lines[3] == "reference   6.000 nats, 1.500 a token over 4 tokens"
    assert lines[5] == "difference  -3.000 nats, -0.750 a token over 4 tokens"
    assert [plain(lines[index]) for index in (2, 4, 6)] == ["Say: ab\\n\nc"] * 3
    assert lines[2].startswith("\x1b[2mSay: \x1b[0m\x1b[48;5;208;38;5;16ma\x1b[0m\x1b[48;5;34;")
    assert lines[6].split("m")[-2].endswith("c\x1b[0")
    assert "48;5;33;" in lines[6].rsplit("\n", 1)[-1]
    assert [re.sub(" +", " ", plain(line)) for line in lines[7:]] == [
        "nats of a token below 0.1 0.1 to 0.7 0.7 to 2 2 to 5 5 up ",
        "nats of base - reference below -0.7 -0.7 to -0.1 -0.1 to 0.1 0.1 to 0.7 0.7 up ",
    ]


def test_a_colour_ends_before_the_line_does():
    row = row_of("a", "\n", base=measured([9]))
    painted = list(coloured_lines(row, decode))[2]
    assert painted.endswith("\\n\x1b[0m\n")


def test_the_losses_of_the_tokens_of_a_letter_are_added_up_in_colours_alone():
    row = row_of("a", "東", base=measured([1, 1.5, 3]))
    assert "\x1b[48;5;196;38;5;16m東\x1b[0m" in list(coloured_lines(row, decode))[2]
    assert [(one["base_loss"], one["text"]) for one in token_rows(row, decode)] == [
        (1.0, "東"),
        (1.5, None),
        (3.0, None),
    ]


def test_a_table_has_a_line_for_each_counted_token():
    more = {"ranks": np.array([1, 100], np.uint8), "entropies": np.array([0.5, 2], np.float32)}
    row = row_of("Q", "é", base=measured([0.25, 2.5], **more), reference=measured([0.5, 1.25]))
    assert list(table_lines(row, decode))[4:] == [
        "position  base_loss  reference_loss  difference  base_rank  base_entropy  token",
        "       1      0.250           0.500      -0.250          1         0.500  'é'",
        "       2      2.500           1.250       1.250        100         2.000  (the same letter)",
    ]


def test_a_model_of_which_only_the_sum_is_known_has_a_line_of_totals():
    row = row_of("Q", "ab", base=measured([1, 2]), reference=ModelTokens(2.5, {}))
    lines = list(table_lines(row, decode))
    assert lines[2:5] == [
        "reference   2.500 nats, 1.250 a token over 2 tokens; the losses of its tokens were not measured",
        "difference  0.500 nats, 0.250 a token over 2 tokens; the losses of its tokens were not measured",
        "position  base_loss  token",
    ]
    assert len(list(coloured_lines(row, decode))) == 6


def test_nothing_of_the_text_reaches_the_terminal_raw():
    text = "\x1b[31mred\x07\u202e\r\n\x9b2J\u2028"
    row = row_of(text, text, base=measured([1] * len(text.encode())))
    own = re.compile(r"\x1b\[(?:0|2|48;5;\d+;38;5;16)m")
    for line in map(shown, [*coloured_lines(row, decode), *table_lines(row, decode)]):
        left = own.sub("", line).replace("\n", "")
        assert left.isprintable(), left
    assert "'\\x1b'" in "".join(table_lines(row, decode))


def test_plain_data_holds_the_text_as_it_is():
    row = row_of("Q", "\x1b", base=measured([1.5]))
    assert as_dict(row, decode) == {
        "example_id": "ab" * 16,
        "id": "mine",
        "file": "a.jsonl",
        "row": 3,
        "view": "response",
        "num_tokens": 1,
        "base_loss": 1.5,
        "tokens": [{"position": 1, "base_loss": 1.5, "text": "\x1b"}],
    }
