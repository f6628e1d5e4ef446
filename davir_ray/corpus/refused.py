"""Columns that change what a row means and that a format does not obey: the row is refused, never taken without them.

A key that says nothing is no reason: null, empty, or a weight of 1.
"""

from collections.abc import Iterable
from typing import Any

from davir_ray.corpus.turns import MEDIA, Row, describe, drop_nulls, says_nothing
from davir_ray.errors import RowError
from davir_ray.schema import Status

WEIGHTS = ("weight", "weights", "sample_weight", "loss_weight", "loss_scale")
REJECTED = ("rejected_response", "rejected_messages")
SIDES = ("chosen", "rejected")
"""The responses of a preference pair; beside a text, or tokens, they are columns as any other."""
CONTEXT = ("system", "tools", "functions", "history", "chat_template_kwargs")
"""What belongs to a conversation beside its turns."""
LABELS = ("label", "kto_tag")
"""What KTO calls the column that says whether an unpaired response is wanted."""

ADVICE = {
    **dict.fromkeys(
        MEDIA, "images, video and audio are not supported; leave such rows out, or drop the column"
    ),
    **dict.fromkeys(WEIGHTS, "rows have no weights here; leave such rows out, or drop the column"),
    **dict.fromkeys(
        (*REJECTED, *SIDES),
        "the row is a preference pair, which this format does not read; write it as `messages` with "
        "`rejected_messages`, or as `prompt`, `chosen`, `rejected`",
    ),
    **dict.fromkeys(
        CONTEXT, "this format has no place for it; write it into the conversation, or drop the column"
    ),
    "kto_tag": "this format has no place for it; drop the column, or leave out the rows that are not wanted",
}
"""What to do about a column that makes a row unusable, by its name."""


def check_refused(row: Row, refused: Iterable[str]) -> None:
    """Raise `RowError` where one of these columns says something."""
    for column in (one for one in refused if one in row):
        value = drop_nulls(row[column])
        if not says_nothing(value) and not (column in WEIGHTS and _is_one(value)):
            raise RowError(Status.BAD_FORMAT, f"column `{column}`: found {describe(value)}: {ADVICE[column]}")


def _is_one(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(isinstance(one, int | float) and one == 1 for one in values)


def check_label(row: Row) -> None:
    """Raise `RowError` with status `undesirable` where KTO's label says that the response is not wanted.

    A `label` that is neither true, false, 1 nor 0 is another thing's, and says nothing here.
    """
    for column in LABELS:
        value = row.get(column)
        if is_wanted(value) is False:
            raise RowError(
                Status.UNDESIRABLE, f"column `{column}` is {_json_word(value)}: the response is not wanted"
            )
        if column == "kto_tag" and value is not None and is_wanted(value) is None:
            raise RowError(
                Status.BAD_FORMAT, f"column `{column}`: expected true or false, found {describe(value)}"
            )


WORDS = {"true": True, "desirable": True, "false": False, "undesirable": False}
"""KTO's labels as text."""


def is_wanted(label: Any) -> bool | None:
    """Tell what a KTO label says; None if it is none."""
    if isinstance(label, str):
        return WORDS.get(label.strip().lower())
    return bool(label) if isinstance(label, int | float) and label in (0, 1) else None


def _json_word(value: Any) -> str:
    return str(value).lower()
