"""Rows of a finished run with their text, their losses and what happened to them. No Ray, no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from davir_ray import storage
from davir_ray.config import CorpusConfig
from davir_ray.corpus.example import Example
from davir_ray.corpus.json_text import to_json
from davir_ray.corpus.lookup import Place, Row, rows_at
from davir_ray.corpus.split import BadRow, place_text
from davir_ray.errors import RecipeError
from davir_ray.runs.run import finished_run, load_run_or_recipe
from davir_ray.schema import Status

ASKED = ("example_id", "id", "file", "row", "status", "rank", "dropped_by")

Shown = dict[str, Any]


@dataclass(frozen=True)
class Which:
    """Which rows are shown: those for which all that is given holds; nothing given: all that have a rank.

    ranks: first and last. id: the user's own, or the example id in hex. place: file (or the end of its path) and row.
    dropped_by: a rule, by its type or as the scored table names it.
    """

    ranks: tuple[int, int] | None = None
    id: str | None = None
    place: Place | None = None
    dropped_by: str | None = None
    status: str | None = None

    def mask(self, table: pa.Table) -> NDArray[np.bool_]:
        """Tell which rows of a scored table are meant [N]."""
        checks = [
            None if self.ranks is None else self._in_ranks(table["rank"]),
            None if self.id is None else self._is_called(table),
            None if self.place is None else self._is_at(table),
            None if self.dropped_by is None else self._is_dropped(table["dropped_by"]),
            None if self.status is None else pc.equal(table["status"], self.status),
        ]
        given = [check for check in checks if check is not None] or [pc.is_valid(table["rank"])]
        mask: NDArray[np.bool_] = np.logical_and.reduce(
            [np.asarray(pc.fill_null(check, False)) for check in given]
        )
        return mask

    def _in_ranks(self, rank: pa.ChunkedArray) -> pa.ChunkedArray:
        first, last = self.ranks or (1, 0)
        return pc.and_(pc.greater_equal(rank, first), pc.less_equal(rank, last))

    def _is_called(self, table: pa.Table) -> pa.ChunkedArray:
        own = pc.fill_null(pc.equal(table["id"], self.id), False)
        try:
            key = bytes.fromhex(self.id or "")
        except ValueError:
            return own
        return pc.or_(own, pc.equal(table["example_id"], key)) if len(key) == 16 else own

    def _is_at(self, table: pa.Table) -> pa.ChunkedArray:
        file, row = self.place or ("", -1)
        names = table["file"].cast(pa.string())
        here = pc.or_(pc.equal(names, storage.absolute(file)), pc.ends_with(names, f"/{file}"))
        return pc.and_(pc.or_(here, pc.equal(names, file)), pc.equal(table["row"], row))

    def _is_dropped(self, rule: pa.ChunkedArray) -> pa.ChunkedArray:
        return pc.or_(pc.equal(rule, self.dropped_by), pc.ends_with(rule, f":{self.dropped_by}"))


@dataclass(frozen=True)
class Found:
    """The first rows that are meant, and how many there are."""

    rows: tuple[Shown, ...]
    total: int

    def as_dict(self) -> dict[str, Any]:
        """Return the rows as plain data."""
        return {"rows": list(self.rows), "total": self.total}


def show(run_dir: str, which: Which, limit: int) -> Found:
    """Find rows of a finished run, and their text in the corpus. Raises `RecipeError`."""
    run, record = finished_run(run_dir)
    recipe, _ = load_run_or_recipe(run_dir, ())
    _check_rule(which, [rule.type for rule in recipe.select])
    rows, total = find_rows(storage.list_files(run.paths.scored, ".parquet"), which, limit)
    if not rows and (which.id is not None or which.place is not None):
        raise RecipeError(f"{run_dir}: no row of the run is {_asked(which)}")
    return Found(with_texts(recipe.corpus, record.formats, rows), total)


def with_texts(corpus: CorpusConfig, formats: Mapping[str, str], rows: Sequence[Shown]) -> tuple[Shown, ...]:
    """Add to rows of a scored table `text` (role -> what it says) and `problem`: why that cannot be told, or None.

    formats: the corpus format of each source.
    """
    texts = rows_at(corpus, formats, [(row["file"], row["row"]) for row in rows])
    return tuple(row | _text_of(row, texts[row["file"], row["row"]]) for row in rows)


def _check_rule(which: Which, rules: Sequence[str]) -> None:
    known = {*rules, *(f"{index}:{rule}" for index, rule in enumerate(rules))}
    if which.dropped_by is not None and which.dropped_by not in known:
        raise RecipeError(
            f"--dropped-by {which.dropped_by}: is no rule of this run, which has {', '.join(rules) or 'none'}"
        )


def _asked(which: Which) -> str:
    asked = [f"called {which.id}"] if which.id is not None else []
    asked += [f"at {place_text(*which.place)}"] if which.place is not None else []
    also = which.ranks or which.dropped_by or which.status
    return " and ".join(asked) + (" and fits the rest of what was asked" if also else "")


def find_rows(parts: Sequence[str], which: Which, limit: int) -> tuple[list[Shown], int]:
    """Read the first rows of a scored table that are meant, and count all."""
    rows: list[Shown] = []
    total = 0
    for uri in parts:
        table = storage.read_table(uri, list(ASKED))
        index = np.flatnonzero(which.mask(table))
        total += len(index)
        if len(wanted := index[: limit - len(rows)]):
            repeats = _repeats(table)
            found = storage.read_rows(uri, wanted.tolist()).to_pylist()
            rows += [_plain(row, repeats) for row in found]
    return rows, total


def _repeats(table: pa.Table) -> dict[bytes, list[str]]:
    """List the repeats of a part by their content: they stand in the part of the row that they repeat."""
    repeats: dict[bytes, list[str]] = {}
    for row in table.filter(pc.equal(table["status"], str(Status.DUPLICATE))).to_pylist():
        repeats.setdefault(row["example_id"], []).append(place_text(row["file"], row["row"]))
    return repeats


def _plain(row: dict[str, Any], repeats: dict[bytes, list[str]]) -> Shown:
    own = repeats.get(row["example_id"], []) if row["status"] != Status.DUPLICATE else []
    return row | {"example_id": row["example_id"].hex(), "repeats": own}


def _text_of(row: Shown, found: Row | str) -> Shown:
    """Return what a row says, by role, or why that cannot be told."""
    if isinstance(found, str):
        return {"text": {}, "problem": f"its text cannot be shown: {found}"}
    if found.parsed.example_id.hex() != row["example_id"]:
        return {"text": {}, "problem": "the corpus has another row there now: it was changed since the run"}
    if found.parsed.example is None:
        raw = found.record.raw if isinstance(found.record, BadRow) else to_json(found.record)
        return {"text": {"row": raw}, "problem": None}
    return {"text": _says(found.parsed.example), "problem": None}


def _says(example: Example) -> dict[str, str]:
    if example.text is not None:
        return {"text": example.text}
    if example.messages is None:
        return {"input_ids": " ".join(map(str, example.input_ids or ()))}
    *before, answer = example.messages
    says = {"prompt": before[-1] if before else {}, "response": answer}
    if example.rejected is not None:
        says["rejected"] = example.rejected[-1]
    return {name: _said(turn) for name, turn in says.items()}


def _said(turn: dict[str, Any]) -> str:
    rest = {name: value for name, value in turn.items() if name not in ("role", "content")}
    content = turn.get("content") or ""
    return " ".join(
        [content if isinstance(content, str) else to_json(content), *([to_json(rest)] if rest else [])]
    )
