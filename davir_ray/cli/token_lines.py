"""`davir inspect RUN --row ID`: the tokens of one row with what models measured of each, in colours or as a table.

A letter may be spread over several tokens. In colours they stand together, and their losses are added up: that is the
loss of the letter. The table has a line for each, with the letter on the first one's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from davir_ray.foreign_text import Shown
from davir_ray.runs.token_losses import DIFFERENCE_STEPS, LOSS_STEPS, TokenRow, Values, step_names
from davir_ray.tokens.pieces import Decode, Piece, pieces
from davir_ray.tokens.preview import END, REST, visible

BESIDE_LOSSES = {"ranks": "rank", "entropies": "entropy"}
"""Further columns of a measurement -> what one of their values is called."""
LETTER_GOES_ON = "(the same letter)"


@dataclass(frozen=True)
class Scale:
    """Steps of a value in nats with their ANSI-256 background colours, which are one more than the bounds."""

    bounds: tuple[float, ...]
    colours: tuple[int, ...]

    def paint(self, text: str, value: float) -> str:
        """Colour a text; its line breaks are left out, as terminals would colour the rest of the line."""
        start = f"\x1b[48;5;{self.colours[np.searchsorted(self.bounds, value, side='right')]};38;5;16m"
        return "\n".join(f"{start}{line}{END}" if line else "" for line in text.split("\n"))

    def legend(self) -> str:
        """Name the bounds of each step in its colour."""
        middles = [self.bounds[0] - 1, *self.bounds]
        named = zip(step_names(self.bounds), middles, strict=True)
        return " ".join(self.paint(f" {name} ", at) for name, at in named)


LOSS = Scale(LOSS_STEPS, (34, 148, 220, 208, 196))
"""From green to red."""
DIFFERENCE = Scale(DIFFERENCE_STEPS, (33, 117, 252, 217, 203))
"""From blue, where the base is surer of the token, to red, where the reference has learnt it."""


def coloured_lines(row: TokenRow, decode: Decode) -> Iterator[str]:
    """Print the text once for each model and once for their difference, with a background colour for each token."""
    cut = list(pieces(row.ids, row.counts, decode))
    yield _title(row)
    for name, total in _totals(row).items():
        yield total
        if name in row.losses:
            scale = DIFFERENCE if name == "difference" else LOSS
            yield Shown(_painted(cut, row, row.losses[name], scale))
    yield Shown(f"nats of a token             {LOSS.legend()}")
    if "difference" in row.losses:
        yield Shown(f"nats of base - reference    {DIFFERENCE.legend()}")


def _painted(cut: Sequence[Piece], row: TokenRow, values: Values, scale: Scale) -> str:
    before = np.concatenate([[0], np.cumsum(row.counts)])
    return "".join(
        scale.paint(visible(one.text), float(values[before[one.first] : before[one.stop]].sum()))
        if one.counts
        else f"{REST}{visible(one.text)}{END}"
        for one in cut
    )


def table_lines(row: TokenRow, decode: Decode) -> Iterator[str]:
    """Print a line for each counted token: its position, what was measured, and its text."""
    yield _title(row)
    yield from _totals(row).values()
    rows = token_rows(row, decode)
    columns = [name for name in rows[0] if name != "text"]
    yield "  ".join([*(f"{name:>{len(name)}}" for name in columns), "token"])
    for one in rows:
        text = LETTER_GOES_ON if one["text"] is None else f"'{_line(one['text'])}'"
        yield "  ".join([*(f"{_number(one[name]):>{len(name)}}" for name in columns), text])


def token_rows(row: TokenRow, decode: Decode) -> list[dict[str, Any]]:
    """Return a row for each counted token. text: None behind the first token of a letter."""
    texts = {one.first: one.text for one in pieces(row.ids, row.counts, decode)}
    columns: dict[str, Any] = {"position": np.flatnonzero(row.counts)}
    columns |= {f"{name}_loss" if name in row.models else name: one for name, one in row.losses.items()}
    for column, title in BESIDE_LOSSES.items():
        known = {role: one.values[column] for role, one in row.models.items() if column in one.values}
        columns |= {f"{role}_{title}": one for role, one in known.items()}
    columns["text"] = [texts.get(position) for position in columns["position"].tolist()]
    lists = [list(one) if isinstance(one, list) else one.tolist() for one in columns.values()]
    return [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]


def as_dict(row: TokenRow, decode: Decode) -> dict[str, Any]:
    """Return the row as plain data."""
    losses = {f"{role}_loss": one.loss for role, one in row.models.items()}
    return {**row.title, "num_tokens": row.num_tokens, **losses, "tokens": token_rows(row, decode)}


def _title(row: TokenRow) -> str:
    place = _line(f"{row.title['file']}:{row.title['row']}")
    counted = f"{row.num_tokens} of {len(row.ids)} tokens count"
    return f"--- {place} example {row.title['example_id']} {row.title['view']}: {counted}"


def _totals(row: TokenRow) -> dict[str, str]:
    """Return a line of totals for each model, and for the difference."""
    sums: dict[str, float] = {role: one.loss for role, one in row.models.items()}
    if {"base", "reference"} <= set(sums):
        sums["difference"] = sums["base"] - sums["reference"]
    return {name: _total(name, loss, row) for name, loss in sums.items()}


def _total(name: str, loss: float, row: TokenRow) -> str:
    line = f"{name:<12}{loss:.3f} nats, {loss / row.num_tokens:.3f} a token over {row.num_tokens} tokens"
    return line if name in row.losses else f"{line}; the losses of its tokens were not measured"


def _number(value: float) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _line(text: str) -> str:
    return visible(text).replace("\n", "")
