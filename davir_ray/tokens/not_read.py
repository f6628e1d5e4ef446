"""Which keys of a conversation the template does not look at."""

from collections.abc import Iterator

from davir_ray.corpus.example import Example
from davir_ray.tokens.tokenizer import Tokenizer

OURS = ("role", "content", "weight")


def not_read_keys(tokenizer: Tokenizer, example: Example | None) -> set[str]:
    """Name what the turns of an example and its surroundings hold and the template leaves out.

    A key of a turn goes by `turns[].key`; `tools` and the keys of `chat_template_kwargs` by their own names.
    """
    if example is None or example.messages is None:
        return set()
    turns = {f"turns[].{key}" for key in _keys(example) if not tokenizer.reads(key)}
    given = {
        f"chat_template_kwargs.{key}"
        for key in example.chat_template_kwargs or {}
        if not tokenizer.reads(key)
    }
    tools = {"tools"} if example.tools and not tokenizer.reads("tools") else set()
    return turns | given | tools


def _keys(example: Example) -> Iterator[str]:
    for message in (*(example.messages or ()), *(example.rejected or ())):
        if len(message) > 2:
            yield from (key for key in message if key not in OURS)
