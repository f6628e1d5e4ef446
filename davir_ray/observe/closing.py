"""The table that every `davir score` ends with: a record as lines of text."""

from collections.abc import Iterator
from typing import Any

Record = dict[str, Any]


def record_lines(record: Record) -> Iterator[str]:
    """Tell where the rows went, how the scores lie, and where the files are."""
    yield f"run       {record['run_id']}  ({record['seconds']} s)"
    yield f"rows      {record['rows']:,}"
    for status, count in sorted(record["status"].items(), key=lambda item: -item[1]):
        yield f"  {status:<20}{count:>10,}"
    yield from _measured(record)
    if record["engine"]["type"] == "hash":
        yield "engine    hash: the numbers below are made up, for trying a recipe; they say nothing about the rows"
    yield f"selected  {record['selected']:,} rows, {record['tokens']:,} response tokens"
    for source, share in record["sources"].items():
        yield f"  {source:<20}{share['selected']:>10,} of {share['rows']:,}"
    yield f"score     {record['score']}; rank correlation with response length {_number(record['length_correlation'])}"
    for name in ("best", "borderline", "worst"):
        for row in record[name]:
            place = f"rank {row['rank']:<9,} {row['num_tokens']:>6,} tokens"
            yield f"  {name:<11}{row['score']:>10.4f}  {place}  {row['example_id']}"
    yield f"scored    {record['scored']}"
    if sum(record["status"].values()) > record["ranked"]:
        yield f"unscored  {record['run_dir']}/unscored  (file, row and reason of each row without a rank)"
    for name, folder in record["coreset"].items():
        yield f"core-set  {folder}  ({name})"


def resumed_lines(record: Record, *, trains: bool) -> Iterator[str]:
    """Tell of a run that was resumed, and of what is left to do where its recipe has a `train` section."""
    yield from record_lines(record)
    if trains:
        yield f"train     not by this command: `davir train {record['run_dir']}` trains on the core-set"


def _measured(record: Record) -> Iterator[str]:
    for role, count in record["measured"].items():
        text = f"measured  {role}: {count:,} sequences; {record['reused'][role]:,} were in the store"
        again = record["measured_again"][role]
        yield f"{text}; {again:,} begun again" if again else text


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:+.2f}"
