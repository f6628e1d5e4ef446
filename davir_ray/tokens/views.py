"""The sequences of an example: one a view, cut to length, named by what is in them.

response        the conversation (see `rendering`)
rejected        the conversation that ends with the rejected response
response_alone  IFD's response without its prompt: the header that the template writes before the last
                answer, and the tokens of that answer. They are cut out of the `response` sequence, so both
                views score the same ids for it. BOS stays in front where `response` has it. Where nothing
                precedes the answer (`plain`, pre-tokenised), BOS or, failing that, EOS does, since a
                first token cannot be scored. With several answers only the last that counts is scored: for IFD over
                conversations set `score_on: last_assistant`. A text row has no prompt: both views are equal.
completion, rejected_completion     what TRL's DPO trains on of an exported pair (see `completions`)
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from davir_ray.config import TokensConfig
from davir_ray.corpus.example import Example
from davir_ray.errors import RowError
from davir_ray.schema import COMPLETIONS, PAIR_VIEWS, Status, View
from davir_ray.tokens.completions import completions
from davir_ray.tokens.rendering import Answer, Ids, Marks, Tokenised, tokenise
from davir_ray.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ViewTokens:
    """One sequence of an example. ids: int32 [T]. scored: bool [T], at least one true, the first false.

    truncated: tokens that count were cut off.
    """

    view: View
    ids: Ids
    scored: Marks
    truncated: bool


def sequences(
    example: Example, tokenizer: Tokenizer, config: TokensConfig, views: Sequence[View]
) -> list[ViewTokens]:
    """Build the asked views of an example, in order. Raises `RowError`: then the example has none of them.

    What only an export asks for (the completions of a pair) is left out where it cannot be had.
    """
    full = {}
    if View.RESPONSE in views or View.RESPONSE_ALONE in views:
        alone = View.RESPONSE_ALONE in views
        full[View.RESPONSE] = tokenise(tokenizer, config, example, answer=alone)
    if View.REJECTED in views:
        full[View.REJECTED] = tokenise(tokenizer, config, example, rejected=True)
    made = {view: _cut(view, tokenised, config) for view, tokenised in full.items()}
    if View.RESPONSE_ALONE in views:
        made[View.RESPONSE_ALONE] = _alone(tokenizer, full[View.RESPONSE], made[View.RESPONSE])
    _check_pair(made)
    if not set(COMPLETIONS).isdisjoint(views):
        for view, (ids, first) in completions(tokenizer, example, config.max_length).items():
            made[view] = ViewTokens(view, ids, np.arange(len(ids)) >= first, truncated=False)
    return [made[view] for view in views if view in made]


def views_in(example: Example, views: Sequence[View]) -> list[View]:
    """Return those of some views that an example has: only a pair has a rejected side."""
    return [view for view in views if view not in PAIR_VIEWS or example.rejected is not None]


def sequence_id(ids: Ids, scored: Marks) -> bytes:
    """Name a sequence by its content: 16 bytes, the same for ever.

    blake2b over the number of ids (int64), the ids (int32) and the marks (bits), all little-endian.
    """
    bits = np.packbits(scored, bitorder="little").tobytes()
    content = struct.pack("<q", len(ids)) + np.asarray(ids, "<i4").tobytes() + bits
    return blake2b(content, digest_size=16).digest()


def _cut(view: View, full: Tokenised, config: TokensConfig) -> ViewTokens:
    limit = config.max_length
    truncated = len(full.ids) > limit
    if truncated and config.truncation == "drop":
        raise RowError(Status.TOO_LONG, f"{len(full.ids)} tokens; tokens.max_length is {limit}")
    ids, scored = full.ids[:limit], full.scored[:limit]
    if not scored.any():
        first = int(full.scored.argmax())
        reason = f"the response begins at token {first + 1}; tokens.max_length is {limit}"
        raise RowError(Status.NO_RESPONSE_TOKENS, reason)
    return ViewTokens(view, ids, scored, truncated)


def _alone(tokenizer: Tokenizer, full: Tokenised, cut: ViewTokens) -> ViewTokens:
    answer = full.answer
    if answer is None or answer.first >= len(cut.ids):
        raise RowError(Status.NO_RESPONSE_TOKENS, "tokens.max_length cuts the last response off")
    # Where the answer begins the sequence, its first token does not count in `response` either.
    header, first = (0, 1) if answer.first == 0 else (answer.header, answer.first)
    lead = _lead(tokenizer, cut.ids, Answer(header, first, answer.stop))
    ids = np.concatenate([lead, cut.ids[header : answer.stop]])
    scored = np.arange(len(ids)) >= len(lead) + first - header
    if not scored.any():
        raise RowError(Status.NO_RESPONSE_TOKENS, "the last response has no token that can be scored")
    return ViewTokens(View.RESPONSE_ALONE, ids, scored, cut.truncated)


def _lead(tokenizer: Tokenizer, ids: Ids, answer: Answer) -> Ids:
    """Return what goes before the header: BOS where the conversation has it, something in any case."""
    begun = tokenizer.hf.bos_token_id is not None and ids[0] == tokenizer.hf.bos_token_id
    if begun and answer.header > 0 and ids[answer.header] != ids[0]:
        return ids[:1]
    if answer.header < answer.first:
        return ids[:0]
    if tokenizer.hf.eos_token_id is None:
        raise RowError(Status.NO_RESPONSE_TOKENS, "no token can precede the response: there is no BOS or EOS")
    return np.array([tokenizer.hf.eos_token_id], np.int32)


def _check_pair(made: dict[View, ViewTokens]) -> None:
    chosen, rejected = made.get(View.RESPONSE), made.get(View.REJECTED)
    if chosen is None or rejected is None or not (chosen.truncated or rejected.truncated):
        return
    if np.array_equal(chosen.ids, rejected.ids):
        reason = f"chosen and rejected are the same in the first {len(chosen.ids)} tokens, where they are cut"
        raise RowError(Status.NO_RESPONSE_TOKENS, reason)
