"""Do two models' tokenizers give the same ids?

What must agree: every token string that both know has one id; strings that only one of them knows are added
tokens (a padding token that fine-tuning brought is no difference); normalisation, pre-tokenisation and merges
are the same; and real rows get the same ids and marks. So these are no difference: an embedding matrix padded
to a round size, another padding token, a chat template that differs where no row shows it. Where there are
no rows to judge by, BOS, EOS and the chat template must be equal.
"""

import json
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from davir_ray.config import TokensConfig
from davir_ray.corpus.example import Example
from davir_ray.errors import RowError, TokenizerMismatch
from davir_ray.schema import View
from davir_ray.tokens.rendering import Ids
from davir_ray.tokens.tokenizer import Tokenizer, tokenizer_identity
from davir_ray.tokens.views import ViewTokens, sequences


def check_agreement(
    base: Tokenizer, reference: Tokenizer, examples: Sequence[Example], config: TokensConfig
) -> None:
    """Raise `TokenizerMismatch`, showing the first difference, unless both give the same ids."""
    if tokenizer_identity(base) == tokenizer_identity(reference):
        return
    _check_vocabulary(base, reference)
    _check_algorithm(base, reference)
    compared = [_same_row(base, reference, example, config) for example in examples]
    if not any(compared):
        _check_settings(base, reference)


def _check_vocabulary(base: Tokenizer, reference: Tokenizer) -> None:
    ours, theirs = base.vocabulary, reference.vocabulary
    moved = [token for token, number in ours.items() if theirs.get(token, number) != number]
    if moved:
        token = min(moved, key=ours.__getitem__)
        shown = f"token {token!r} is {ours[token]} in base and {theirs[token]} in reference"
        raise _mismatch(base, reference, f"{shown}; {len(moved)} tokens differ in all")
    for one, other, name in ((base, reference, "base"), (reference, base, "reference")):
        added = one.hf.get_added_vocab()
        alone = [token for token in one.vocabulary if token not in other.vocabulary and token not in added]
        if alone:
            token = min(alone, key=one.vocabulary.__getitem__)
            shown = f"only {name} knows token {token!r} ({one.vocabulary[token]})"
            raise _mismatch(base, reference, f"{shown}; {len(alone)} such tokens in all")


def _check_algorithm(base: Tokenizer, reference: Tokenizer) -> None:
    ours, theirs = (json.loads(one.hf.backend_tokenizer.to_str()) for one in (base, reference))
    for part in ("normalizer", "pre_tokenizer"):
        if ours[part] != theirs[part]:
            raise _mismatch(
                base, reference, _difference(part, json.dumps(ours[part]), json.dumps(theirs[part]))
            )
    for part in ("type", "merges", "byte_fallback", "ignore_merges"):
        one, other = ours["model"].get(part), theirs["model"].get(part)
        if one != other:
            raise _mismatch(base, reference, _first_item(part, one, other))


def _first_item(part: str, ours: Any, theirs: Any) -> str:
    if isinstance(ours, list) and isinstance(theirs, list):
        pairs = enumerate(zip_longest(ours, theirs))
        position, (ours, theirs) = next((at, pair) for at, pair in pairs if pair[0] != pair[1])
        part = f"{part}[{position}]"
    return f"{part} is {ours!r} in base and {theirs!r} in reference"


def _same_row(base: Tokenizer, reference: Tokenizer, example: Example, config: TokensConfig) -> bool:
    """Compare one row; False where neither can take it. Raises at the first difference."""
    views = [View.RESPONSE] if example.rejected is None else [View.RESPONSE, View.REJECTED]
    ours, theirs = (_row(one, example, config, views) for one in (base, reference))
    row = f"row {example.example_id.hex()}"
    if isinstance(ours, RowError) or isinstance(theirs, RowError):
        if isinstance(ours, RowError) and isinstance(theirs, RowError):
            return False
        name, error = ("base", ours) if isinstance(ours, RowError) else ("reference", theirs)
        raise _mismatch(base, reference, f"{row}: only {name} cannot take it: {error}")
    for one, other in zip(ours, theirs, strict=True):
        if not (np.array_equal(one.ids, other.ids) and np.array_equal(one.scored, other.scored)):
            shown = _first_position(base, reference, one, other)
            raise _mismatch(
                base, reference, f"{row}, view {one.view}: {shown}{_template_hint(base, reference)}"
            )
    return True


def _row(
    tokenizer: Tokenizer, example: Example, config: TokensConfig, views: list[View]
) -> list[ViewTokens] | RowError:
    try:
        return sequences(example, tokenizer, config, views)
    except RowError as error:
        return error


def _first_position(base: Tokenizer, reference: Tokenizer, one: ViewTokens, other: ViewTokens) -> str:
    ours, theirs = (list(zip(view.ids, view.scored, strict=True)) for view in (one, other))
    position = next(at for at, pair in enumerate(zip_longest(ours, theirs)) if pair[0] != pair[1])
    around = slice(max(position - 3, 0), position + 4)
    return (
        f"first difference at token {position}\n"
        f"  base:      {_spelt(base, one.ids[around])}\n"
        f"  reference: {_spelt(reference, other.ids[around])}"
        + (
            ""
            if one.ids[position:][:1] != other.ids[position:][:1]
            else "\n  the ids agree there, what counts does not"
        )
    )


def _spelt(tokenizer: Tokenizer, ids: Ids) -> str:
    return " ".join(f"{number}={tokenizer.decode([number])!r}" for number in ids) or "(ends before)"


def _template_hint(base: Tokenizer, reference: Tokenizer) -> str:
    ours, theirs = (one.chat_template() if one.template == "chat" else "" for one in (base, reference))
    return "" if ours == theirs else f"\n  {_difference('chat template', ours, theirs)}"


def _check_settings(base: Tokenizer, reference: Tokenizer) -> None:
    if base.bos_ids != reference.bos_ids:
        raise _mismatch(
            base, reference, f"base begins a text with {base.bos_ids}, reference with {reference.bos_ids}"
        )
    for name in ("bos_token", "eos_token"):
        ours, theirs = getattr(base.hf, name), getattr(reference.hf, name)
        if ours != theirs:
            raise _mismatch(base, reference, f"{name} is {ours!r} in base and {theirs!r} in reference")
    if hint := _template_hint(base, reference):
        raise _mismatch(base, reference, hint.strip())


def _difference(what: str, ours: str, theirs: str) -> str:
    pairs = zip_longest(ours, theirs)
    position = next((at for at, (one, other) in enumerate(pairs) if one != other), 0)
    around = slice(max(position - 20, 0), position + 40)
    return (
        f"the {what}s differ from character {position}: base {ours[around]!r}, reference {theirs[around]!r}"
    )


def _mismatch(base: Tokenizer, reference: Tokenizer, what: str) -> TokenizerMismatch:
    models = f"base {base.path} and reference {reference.path}"
    first, *more = what.split("\n")
    return TokenizerMismatch(f"{models} give different token ids: {first}", *more)
