"""What the quickstart says at the end: where the known-bad rows went, and how the extreme rows read."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds

from davir_ray.corpus.example import Example
from davir_ray.runs.record import JobRecord

Row = dict[str, Any]

KINDS = {
    "swapped": "answer of another row",
    "repeat": "exact repeat",
    "empty": "empty answer",
    "wrong_shape": "no answer turn",
}
"""Values of the column `known_bad`, in words."""


def closing_lines(record: JobRecord, corpus: Path) -> Iterator[str]:
    """Describe a finished run on the quickstart's corpus. `record` is what `davir run --json` prints."""
    rows = ds.dataset(corpus).to_table().to_pylist()
    chosen = ds.dataset(record.coreset["parquet"]).to_table().to_pylist()
    scored = ds.dataset(record.scored).to_table().to_pylist()
    yield from known_bad_lines(rows, chosen)
    chance = good_above_swapped(rows, scored)
    yield f"  probability that a good row ranks above one with a swapped answer: {chance:.2f}"
    yield from family_lines(rows, chosen)
    yield from example_lines(rows, scored)
    yield from next_lines(record)


def known_bad_lines(rows: list[Row], chosen: list[Row]) -> Iterator[str]:
    """Compare the share of known-bad rows in the core-set with their share in the corpus."""
    before, after = known_bad(rows), known_bad(chosen)
    yield ""
    yield f"{'known-bad rows':<24}{'corpus':>16}{'core-set':>16}"
    for kind, words in KINDS.items():
        yield f"  {words:<22}{_share(before[kind], len(rows)):>16}{_share(after[kind], len(chosen)):>16}"
    total = _share(before.total(), len(rows)), _share(after.total(), len(chosen))
    yield f"  {'all':<22}{total[0]:>16}{total[1]:>16}"


def known_bad(rows: list[Row]) -> Counter[str]:
    """Count known-bad rows by kind; of several equal rows, all but one count as repeats."""
    kinds = Counter(row["known_bad"] for row in rows if row["known_bad"] not in ("", "repeat"))
    kinds["repeat"] = len(rows) - len({example_id(row) for row in rows})
    return kinds


def good_above_swapped(rows: list[Row], scored: list[Row]) -> float:
    """Return the share of pairs of a good and a swapped row in which the good one ranks higher (AUC)."""
    swapped = {example_id(row) for row in rows if row["known_bad"] == "swapped"}
    ranked = sorted((row for row in scored if row["rank"] is not None), key=lambda row: row["rank"])
    good, won = 0, 0
    for row in ranked:
        if row["example_id"] in swapped:
            won += good
        else:
            good += 1
    return won / max(good * len(swapped), 1)


def family_lines(rows: list[Row], chosen: list[Row]) -> Iterator[str]:
    """Compare the share of each family in the core-set with its share in the corpus."""
    before, after = (Counter(row["family"] for row in some) for some in (rows, chosen))
    yield ""
    yield "families"
    for family in sorted(before):
        shares = _share(before[family], len(rows)), _share(after[family], len(chosen))
        yield f"  {family:<22}{shares[0]:>16}{shares[1]:>16}"


def example_id(row: Row) -> bytes:
    """Return the id that the scored table gives to a row of the corpus."""
    return Example(messages=tuple(row["messages"])).example_id


def example_lines(rows: list[Row], scored: list[Row]) -> Iterator[str]:
    """Show the three best and the three worst rows as text."""
    text = {example_id(row): row for row in rows}
    ranked = sorted((row for row in scored if row["rank"] is not None), key=lambda row: row["rank"])
    for title, some in (("best rows", ranked[:3]), ("worst rows", ranked[-3:])):
        yield ""
        yield title
        for row in some:
            yield from _example(row, text[row["example_id"]])


def _example(scored: Row, row: Row) -> Iterator[str]:
    note = f"  (known bad: {KINDS[row['known_bad']]})" if row["known_bad"] not in ("", "repeat") else ""
    yield f"  rank {scored['rank']:<4} score {scored['score']:+.3f}  {row['id']}{note}"
    for name, message in zip(("question", "answer"), row["messages"], strict=True):
        yield f"    {name:<9} {_shortened(message['content'])}"


def next_lines(record: JobRecord) -> Iterator[str]:
    """Say where things are, and what to try next."""
    yield ""
    yield "files"
    yield f"  run       {record.run_dir}"
    yield f"  scored    {record.scored}   every row once, with its score, rank and status"
    yield f"  core-set  {record.coreset['parquet']}   the chosen rows, with their own columns"
    if record.train is not None:
        yield f"  model     {record.train.model}   the base with the adapter trained on them"
    yield ""
    yield "what to try next (no model is run again)"
    select = f".venv/bin/davir select {record.run_dir} --set"
    yield f"  {select} 'select=[{{type: length_quota, fraction: 0.25}}]'"
    yield f"  {select} 'select=[{{type: quota, by: group, fraction: 0.25}}]'"
    yield f"  {select} score.name=rho_mean"
    yield "  .venv/bin/davir scores"


def _share(count: int, total: int) -> str:
    return f"{count} of {total} ({count / max(total, 1):.0%})"


def _shortened(text: str, width: int = 96) -> str:
    line = " / ".join(text.splitlines())
    return line if len(line) <= width else f"{line[: width - 3]}..."
