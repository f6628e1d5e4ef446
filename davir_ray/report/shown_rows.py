"""Rows with their text, and with the losses of their tokens where those were kept."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from davir_ray.errors import DavirError
from davir_ray.recipe import Recipe
from davir_ray.report.figures import Figures
from davir_ray.runs.record import RunRecord
from davir_ray.runs.rows import with_texts
from davir_ray.runs.token_losses import (
    DIFFERENCE_STEPS,
    LOSS_STEPS,
    TokenRow,
    Values,
    tokenizer_of,
    tokens_of,
)
from davir_ray.schema import View
from davir_ray.tokens.pieces import Decode, pieces

TOKENS_SHOWN = 400
"""Counted tokens of a row that are coloured."""
KINDS = {"best": "Best", "borderline": "At the cut", "worst": "Worst"}


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


def shown_ranks(record: RunRecord) -> dict[int, str]:
    """Return the ranks of the rows that a record shows, with what they are shown as; each once."""
    shown: dict[int, str] = {}
    for kind in KINDS:
        for row in getattr(record, kind):
            shown.setdefault(row.rank, kind)
    return shown


def shown_rows(
    folder: str, record: RunRecord, recipe: Recipe, figures: Figures
) -> Mapping[str, list[dict[str, Any]]]:
    """Return kind (KINDS) -> rows in the order of ranks, with their text and, where they were kept, token losses."""
    kinds = shown_ranks(record)
    rows = with_texts(
        recipe.corpus, record.formats, [figures.told[rank] for rank in sorted(figures.told) if rank in kinds]
    )
    painted = token_losses(folder, record, recipe, rows)
    shown: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for row in rows:
        shown[kinds[row["rank"]]].append(row | painted.get(row["rank"], {"tokens": [], "no_tokens": None}))
    return shown


def token_losses(
    folder: str, record: RunRecord, recipe: Recipe, rows: Sequence[dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Return rank -> `tokens` (a `Painted` a model) and `no_tokens`, why there are none; empty if none were kept."""
    if not any("-token_" in label for label in record.measurements):
        return {}
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
