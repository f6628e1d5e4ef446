from davir_ray.tokens.preview import bracketed, coloured, visible
from tests.unit.tokens.conversations import row, says, user, view


def test_what_counts_stands_in_brackets(load):
    tokenizer = load("marked")
    made = view(tokenizer, row(user("Hello"), says("Yes"), user("Hello"), says("No")))
    assert bracketed(tokenizer, made.ids, made.scored) == (
        "<|im_start|>user\\n\nHello<|im_end|>\\n\n<|im_start|>assistant\\n\n[[Yes<|im_end|>]]\\n\n"
        "<|im_start|>user\\n\nHello<|im_end|>\\n\n<|im_start|>assistant\\n\n[[No<|im_end|>]]"
    )


def test_what_counts_is_green(load):
    tokenizer = load("marked")
    made = view(tokenizer, row(user("Hello"), says("Yes")))
    text = coloured(tokenizer, made.ids, made.scored)
    assert text.endswith("assistant\\n\n\x1b[0m\x1b[1;32mYes<|im_end|>\x1b[0m")
    assert text.startswith("\x1b[2m<|im_start|>user")


def test_a_row_cannot_write_to_the_terminal(load):
    tokenizer = load("marked")
    made = view(tokenizer, row(user("\x1b]0;title\x07"), says("\x1b[2J\r\x00\x9b31m\u202e\u2028ok")))
    plain = bracketed(tokenizer, made.ids, made.scored)
    assert all(character.isprintable() or character == "\n" for character in plain)
    assert "\\x1b[2J\\r\\x00\\x9b31m\\u202e\\u2028ok" in plain


def test_letters_and_emoji_are_shown_as_they_are(load):
    tokenizer = load("marked")
    made = view(tokenizer, row(user("Hello"), says("d\u00e9j\u00e0 \U0001f600")))
    assert "[[d\u00e9j\u00e0 \U0001f600<|im_end|>]]" in bracketed(tokenizer, made.ids, made.scored)


def test_line_breaks_are_spelt_and_kept():
    assert visible("a\n\tb") == "a\\n\n\\tb"
