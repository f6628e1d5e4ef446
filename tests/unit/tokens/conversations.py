"""Short ways to write rows, and to ask what of a sequence counts."""

from davir_ray.config import TokensConfig
from davir_ray.corpus.example import Example, Message
from davir_ray.schema import View
from davir_ray.tokens.tokenizer import Tokenizer
from davir_ray.tokens.views import ViewTokens, sequences


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def says(text: str | None, **more) -> Message:
    return {"role": "assistant", "content": text, **more}


def row(*messages: Message, **more) -> Example:
    return Example(messages=messages, **more)


def view(tokenizer: Tokenizer, example: Example, which: View = View.RESPONSE, **config) -> ViewTokens:
    (made,) = sequences(example, tokenizer, TokensConfig(**config), [which])
    return made


def counted(tokenizer: Tokenizer, made: ViewTokens) -> str:
    return tokenizer.decode(made.ids[made.scored])


def runs(tokenizer: Tokenizer, made: ViewTokens) -> list[str]:
    """The text of each unbroken run of tokens that count."""
    found: list[list[int]] = []
    before = False
    for number, counts in zip(made.ids, made.scored, strict=True):
        if counts and not before:
            found.append([])
        if counts:
            found[-1].append(int(number))
        before = counts
    return [tokenizer.decode(ids) for ids in found]
