"""The rows that a page shows one by one, with their text."""

from collections.abc import Mapping, Sequence
from typing import Any

from davir_ray.recipe import Recipe
from davir_ray.runs.record import RunRecord
from davir_ray.runs.rows import Shown, with_texts

KINDS = {"best": "Best", "borderline": "At the cut", "worst": "Worst"}


def shown_ranks(record: RunRecord) -> dict[int, str]:
    """Return the ranks of the rows that a record shows, with what they are shown as; each once."""
    shown: dict[int, str] = {}
    for kind in KINDS:
        for row in getattr(record, kind):
            shown.setdefault(row.rank, kind)
    return shown


def shown_rows(
    folder: str, record: RunRecord, recipe: Recipe, told: Mapping[int, dict[str, Any]]
) -> Mapping[str, list[dict[str, Any]]]:
    """Return kind (KINDS) -> rows in the order of ranks, with their text and, where they were kept, token losses.

    told: rank -> row of the scored table, for the ranks that the record shows.
    """
    kinds = shown_ranks(record)
    rows = with_texts(recipe.corpus, record.formats, [told[rank] for rank in sorted(told)])
    painted = tokens_in_colours(folder, record, recipe, rows)
    shown: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for row in rows:
        shown[kinds[row["rank"]]].append(row | painted.get(row["rank"], {"tokens": [], "no_tokens": None}))
    return shown


def colour_key(shown: Mapping[str, Sequence[Shown]]) -> Mapping[str, Sequence[str]]:
    """Return what the colours of the tokens that are shown stand for: of a `loss`, and of the `difference` of two."""
    names = {one.name for rows in shown.values() for row in rows for one in row["tokens"]}
    if not names:
        return {}
    from davir_ray.report.token_colours import COLOURS  # here: see tokens_in_colours

    return {name: steps for name, steps in COLOURS.items() if name == "loss" or name in names}


def tokens_in_colours(
    folder: str, record: RunRecord, recipe: Recipe, rows: Sequence[Shown]
) -> dict[int, Shown]:
    """Return rank -> what `token_losses` tells of a row; of a run that kept no losses of tokens, nothing."""
    if not any("-token_" in label for label in record.measurements):
        return {}
    from davir_ray.report.token_colours import token_losses  # here: what decodes tokens takes seconds to load

    return token_losses(folder, record, recipe, rows)
