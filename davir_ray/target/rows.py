"""The rows of `target`, read and tokenised at once: they are few, and every one of them counts.

What would cost a row of the corpus its score stops a run here: a target that is not whole is another target.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np

from davir_ray.config import TargetConfig, TokensConfig
from davir_ray.corpus.example import Example
from davir_ray.corpus.listing import Listing, list_corpus
from davir_ray.corpus.reading import Parsed, examples
from davir_ray.corpus.split import Split, place_text
from davir_ray.errors import CorpusError, RowError
from davir_ray.influence.target import Subtask, Target, TargetRow
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.schema import View
from davir_ray.tokens.tokenizer import Tokenizer
from davir_ray.tokens.views import ViewTokens, sequences

MOST_TOLD = 10
"""Rows of a target that cannot be used and are named."""


@dataclass(frozen=True)
class FewShotRow:
    """A row of the target. place: file and row, as people read them. rejected: of a pair, else None."""

    subtask: str
    place: str
    example_id: bytes
    chosen: TokenSequence
    rejected: TokenSequence | None


@dataclass(frozen=True)
class FewShot:
    """All rows of the target, in the order of its files.

    formats: subtask -> format. not_read: subtask -> columns that nothing reads.
    """

    rows: tuple[FewShotRow, ...]
    formats: Mapping[str, str]
    not_read: Mapping[str, tuple[str, ...]]

    @cached_property
    def digest(self) -> str:
        """Name the content of the rows by subtask, and where they are, whatever is read of them."""
        text = "\n".join(f"{row.subtask} {row.place} {row.example_id.hex()}" for row in self.rows)
        return blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()

    @cached_property
    def target(self) -> Target:
        """The sequences alone, by subtask."""
        subtasks: dict[str, list[TargetRow]] = {}
        for row in self.rows:
            subtasks.setdefault(row.subtask, []).append(TargetRow(row.chosen, row.rejected))
        return Target(tuple(Subtask(name, tuple(rows)) for name, rows in subtasks.items()))


def read_target(config: TargetConfig, tokens: TokensConfig, tokenizer: Tokenizer, *, pairs: bool) -> FewShot:
    """Read and tokenise every row of the target; with `pairs`, each with both of its sides.

    Raises `CorpusError` for rows that cannot be used whole, of which it names the first few, and for a subtask without
    rows.
    """
    listing = list_corpus(config, config.limit, "target")
    rows: list[FewShotRow] = []
    wrong: list[str] = []
    not_read: dict[str, tuple[str, ...]] = {}
    for split, parsed in _parsed(config, listing):
        try:
            rows.append(_row(split, parsed, tokens, tokenizer, pairs))
        except CorpusError as error:
            wrong += error.lines
        not_read[split.source] = tuple(dict.fromkeys((*not_read.get(split.source, ()), *parsed.not_read)))
    if wrong:
        more = [f"target: {len(wrong) - MOST_TOLD:,} rows more"] if len(wrong) > MOST_TOLD else []
        raise CorpusError(*wrong[:MOST_TOLD], *more)
    if empty := sorted(set(config.paths) - {row.subtask for row in rows}):
        limit = (
            f" among the first {config.limit} of all, by subtask and path (target.limit)"
            if config.limit
            else ""
        )
        raise CorpusError(f"target.paths.{empty[0]}: has no row{limit}; each subtask needs at least one")
    unread = {name: columns for name, columns in not_read.items() if columns}
    return FewShot(tuple(rows), listing.formats, unread)


def _parsed(config: TargetConfig, listing: Listing) -> Iterator[tuple[Split, Parsed]]:
    for split in listing.splits:
        for one in examples(split, config, listing.formats[split.source]):
            yield split, one


def _row(split: Split, parsed: Parsed, tokens: TokensConfig, tokenizer: Tokenizer, pairs: bool) -> FewShotRow:
    place = place_text(split.path, parsed.row)
    if parsed.example is None:
        raise CorpusError(f"target: {place}: {parsed.status}: {parsed.reason}; every row of a target counts")
    if pairs and parsed.example.rejected is None:
        raise CorpusError(
            f"target: {place}: has no rejected response, and scores rose and rose_projected take the gradients of "
            "preference pairs; "
            "`davir formats` shows what a pair looks like"
        )
    made = _views(place, parsed.example, tokens, tokenizer, pairs)
    chosen, rejected = (_sequence(made, view) for view in (View.RESPONSE, View.REJECTED))
    assert chosen is not None
    if rejected is not None and np.array_equal(chosen.ids, rejected.ids):
        raise CorpusError(f"target: {place}: both responses have the same tokens: neither is preferred")
    return FewShotRow(split.source, place, parsed.example_id, chosen, rejected)


def _views(
    place: str, example: Example, tokens: TokensConfig, tokenizer: Tokenizer, pairs: bool
) -> dict[View, ViewTokens]:
    """Tokenise the views of a row. Raises `CorpusError` where one is longer than the models read."""
    views = [View.RESPONSE, *([View.REJECTED] if pairs else [])]
    try:
        made = {one.view: one for one in sequences(example, tokenizer, tokens, views)}
    except RowError as error:
        raise CorpusError(
            f"target: {place}: {error.status}: {error.reason}; every row of a target counts"
        ) from error
    for view, one in made.items():
        if one.truncated:
            raise CorpusError(
                f"target: {place}: its {view} is longer than tokens.max_length ({tokens.max_length} tokens); "
                "every row of a target counts whole"
            )
    return made


def _sequence(made: Mapping[View, ViewTokens], view: View) -> TokenSequence | None:
    return TokenSequence(made[view].ids, made[view].scored) if view in made else None
