"""What nothing reads of the rows of a corpus: columns, and keys of conversations that the template does not look at."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from davir_ray.config import CorpusConfig
from davir_ray.corpus.example import Example
from davir_ray.corpus.not_read import NotRead
from davir_ray.corpus.reading import examples, not_read_columns
from davir_ray.corpus.split import Split
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


def first_not_read(
    split: Split, rows: int, corpus: CorpusConfig, format: str, tokenizer: Tokenizer
) -> NotRead:
    """Count what nothing reads of the first rows of a split. Raises `UnreadableFile`."""
    found = NotRead()
    for parsed in islice(examples(split, corpus, format), rows):
        found.add_row({*parsed.not_read, *not_read_keys(tokenizer, parsed.example)})
    found.add_columns(not_read_columns(replace(split, num_rows=found.rows), corpus, format))
    return found


def by_source(splits: Sequence[Split], notes: Sequence[NotRead]) -> dict[str, NotRead]:
    """Add up, source by source, what nothing reads of the splits of a corpus."""
    found = {split.source: NotRead() for split in splits}
    for split, note in zip(splits, notes, strict=True):
        found[split.source].add(note)
    return {source: one for source, one in found.items() if one.columns}
