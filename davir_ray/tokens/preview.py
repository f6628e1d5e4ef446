"""Show which tokens of a sequence count.

What comes from the corpus is shown by its printable characters only: control characters, escape sequences and
marks that reorder text are spelt out, so a row cannot write to the terminal. Line breaks are spelt and kept.
"""

from itertools import groupby

from davir_ray.foreign_text import Shown, printable
from davir_ray.tokens.rendering import Ids, Marks
from davir_ray.tokens.tokenizer import Tokenizer

COUNTS, REST, END = "\x1b[1;32m", "\x1b[2m", "\x1b[0m"


def coloured(tokenizer: Tokenizer, ids: Ids, scored: Marks) -> Shown:
    """Show what counts in green and the rest dim, with ANSI colours."""
    runs = _runs(tokenizer, ids, scored)
    return Shown("".join(f"{COUNTS if counts else REST}{text}{END}" for counts, text in runs))


def bracketed(tokenizer: Tokenizer, ids: Ids, scored: Marks) -> Shown:
    """Show what counts between `[[` and `]]`, without colours."""
    runs = _runs(tokenizer, ids, scored)
    return Shown("".join(f"[[{text}]]" if counts else text for counts, text in runs))


def _runs(tokenizer: Tokenizer, ids: Ids, scored: Marks) -> list[tuple[bool, str]]:
    # Decoded a run at a time: one character may be spread over several tokens.
    pairs = groupby(zip(ids, scored, strict=True), key=lambda pair: bool(pair[1]))
    return [(counts, visible(tokenizer.decode([number for number, _ in run]))) for counts, run in pairs]


def visible(text: str) -> str:
    """Spell out every character that does not print; a line break is spelt and kept."""
    return "\\n\n".join(map(printable, text.split("\n")))
