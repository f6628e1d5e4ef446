"""The tokens of rows in colours: what each model, and the difference of both, says of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from davir_ray.errors import DavirError
from davir_ray.recipe import Recipe
from davir_ray.runs.record import RunRecord
from davir_ray.runs.token_losses import (
    DIFFERENCE_STEPS,
    LOSS_STEPS,
    TokenRow,
    Values,
    step_names,
    tokenizer_of,
    tokens_of,
)
from davir_ray.schema import View
from davir_ray.tokens.pieces import Decode, pieces

TOKENS_SHOWN = 400
"""Counted tokens of a row that are coloured."""
COLOURS = {"loss": step_names(LOSS_STEPS), "difference": step_names(DIFFERENCE_STEPS)}
"""What each colour stands for, in nats, from the first step to the last."""


@dataclass(frozen=True)
class Painted:
    """A sequence's counted tokens with what a model, or the difference of both, says of each.

    steps: the colour of each piece of text, 0 to 4, from an easy token to a hard one; of `difference`, from what the
    base knows better to what the reference has learnt.
    """

    name: str
    nats: float
    pieces: tuple[tuple[str, int, float], ...]
    left_out: int


def token_losses(
    folder: str, record: RunRecord, recipe: Recipe, rows: Sequence[dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Return rank -> `tokens` (a `Painted` a model) and `no_tokens`, why there are none."""
    try:
        decode = tokenizer_of(recipe).decode
        return {row["rank"]: _tokens(folder, record, row, decode) for row in rows}
    except (DavirError, OSError) as error:
        return {row["rank"]: {"tokens": [], "no_tokens": str(error)} for row in rows}


def _tokens(folder: str, record: RunRecord, row: dict[str, Any], decode: Decode) -> dict[str, Any]:
    found = tokens_of(folder, record, row, View.RESPONSE)
    return {"tokens": list(painted(found, decode)), "no_tokens": None}


def painted(row: TokenRow, decode: Decode) -> Iterator[Painted]:
    """Cut the counted tokens of a sequence into pieces of text with their colours, once for each model."""
    counted = np.concatenate([[0], np.cumsum(row.counts)])
    cut = [
        (one.text, counted[one.first], counted[one.stop])
        for one in pieces(row.ids, row.counts, decode)
        if one.counts and counted[one.first] < TOKENS_SHOWN
    ]
    for name, losses in row.losses.items():
        steps = DIFFERENCE_STEPS if name == "difference" else LOSS_STEPS
        texts = tuple(_piece(text, losses[first:stop], steps) for text, first, stop in cut)
        yield Painted(name, float(losses.sum()), texts, max(0, row.num_tokens - TOKENS_SHOWN))


def _piece(text: str, losses: Values, steps: Sequence[float]) -> tuple[str, int, float]:
    nats = float(losses.sum())
    return text, int(np.searchsorted(steps, nats, side="right")), nats
