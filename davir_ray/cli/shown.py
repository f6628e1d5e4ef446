"""What `davir show` prints of the rows that it found."""

from collections.abc import Iterator

from davir_ray.corpus.split import place_text
from davir_ray.runs.rows import Found, Shown
from davir_ray.schema import OF_SUBTASK
from davir_ray.tokens.preview import visible

SHORT = 300
"""Characters of a text that are shown; of a longer one its beginning and its end."""


def shown_lines(found: Found) -> Iterator[str]:
    """Tell of each row what happened to it, and what it says."""
    for row in found.rows:
        yield from _lines(row)
    if found.total > len(found.rows):
        yield f"{len(found.rows):,} of {found.total:,} rows; --limit shows more"
    elif not found.rows:
        yield "no row is like that"


def _lines(row: Shown) -> Iterator[str]:
    rank = "no rank" if row["rank"] is None else f"rank {row['rank']:,}"
    place = _line(place_text(row["file"], row["row"]))
    yield f"--- {rank}  {_fate(row)}  {place}" + (f"  id {_line(row['id'])}" if row["id"] else "")
    if row["score"] is not None:
        yield f"  score     {row['score']:.4f}  (percentile {row['percentile']:.1f})"
    if own := [f"{_line(name.removeprefix(OF_SUBTASK))} {row[name]:.4f}" for name in _subtasks(row)]:
        yield f"  subtasks  {', '.join(own)}"
    if row["num_tokens"] is not None:
        yield f"  losses    {_losses(row)} {row['num_tokens']:,} response tokens"
    if row["reason"]:
        yield f"  reason    {_line(row['reason'])}"
    for name, text in row["text"].items():
        yield f"  {name:<10}{_line(_short(text))}"
    if row["problem"]:
        yield f"  problem   {_line(row['problem'])}"
    if row["repeats"]:
        yield f"  repeats   {', '.join(map(_line, row['repeats']))}"
    yield f"  example   {row['example_id']}"


def _subtasks(row: Shown) -> list[str]:
    """Name the columns with the row's scores for subtasks of the target."""
    return [name for name in row if name.startswith(OF_SUBTASK) and row[name] is not None]


def _losses(row: Shown) -> str:
    known = {name: row[f"{name}_loss"] for name in ("base", "reference")}
    told = [f"{name} {loss:.2f}" for name, loss in known.items() if loss is not None]
    return f"{', '.join(told)} nats over" if told else "not measured;"


def _fate(row: Shown) -> str:
    if row["selected"]:
        return "selected"
    return f"left out by {row['dropped_by']}" if row["dropped_by"] else str(row["status"])


def _short(text: str) -> str:
    return text if len(text) <= SHORT else f"{text[: SHORT * 2 // 3]} ... {text[-SHORT // 3 :]}"


def _line(text: str) -> str:
    return visible(text).replace("\n", "")
