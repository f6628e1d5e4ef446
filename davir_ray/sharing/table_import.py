"""A score table -> ordinary parts of a store, under the fingerprints that the table says and that are checked."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from davir_ray.config import EngineConfig
from davir_ray.errors import StoreError
from davir_ray.ids import column_of, find, keys_of
from davir_ray.logprobs.choice import choice_that_gave
from davir_ray.logprobs.kinds import LOSS
from davir_ray.measure.kind import kind_identity
from davir_ray.sharing.score_table import (
    Measured,
    TableCard,
    made_up_lines,
    models_lines,
    read_score_table,
    rows_of,
)
from davir_ray.storage.layout import StoreLayout
from davir_ray.store.measurements import MeasurementStore, bundles, distinct, part_name

ROWS_PER_PART = 1_000_000
FAILED_ELSEWHERE = "could not be measured where the score table was made"


def import_table(uri: str, store: str) -> Iterator[str]:
    """Add what a score table holds to a store, and tell in lines what was new and which recipe finds it.

    Nothing is written unless all of the table is sound and contradicts nothing that the store holds. Raises
    `StoreError`.
    """
    card, rows = read_score_table(uri)
    lacks = [_lack(uri, store, one, rows_of(rows, index)) for index, one in enumerate(card.measurements)]
    yield from made_up_lines(card)
    for one, lack in zip(card.measurements, lacks, strict=True):
        lack.fill(one)
        yield f"{one.called:<10}{lack.rows:,} sequences of {one.name}; {lack.known:,} were in the store"
    yield f"store     {store}"
    yield from _recipe_lines(card)


@dataclass(frozen=True)
class Lack:
    """What a store lacks of one measurement of a table. known: how many sequences it has already."""

    store: MeasurementStore
    measured: pa.Table
    failed: tuple[bytes, ...]
    known: int

    @property
    def rows(self) -> int:
        """How many sequences are new."""
        return len(self.measured) + len(self.failed)

    def fill(self, one: Measured) -> None:
        """Write what is new."""
        self.store.describe(_description(one))
        for start in range(0, len(self.measured), ROWS_PER_PART):
            part = self.measured.slice(start, ROWS_PER_PART)
            self.store.write(keys_of(part["sequence_id"]), part)
        if self.failed:
            name = part_name(np.array(self.failed, dtype="S16"))
            self.store.write_failed(name, dict.fromkeys(self.failed, FAILED_ELSEWHERE))


def _lack(uri: str, store: str, one: Measured, rows: pa.Table) -> Lack:
    """Compare a measurement of a table with what a store holds. Raises `StoreError` where the two contradict."""
    target = MeasurementStore(StoreLayout(store).measurements_of(one.fingerprint), LOSS)
    held = distinct(pa.concat_tables([LOSS.columns.empty_table(), *_parts(target)])).combine_chunks()
    measured = rows.filter(rows["loss"].is_valid()).select(LOSS.columns.names).cast(LOSS.columns)
    at = find(keys_of(measured["sequence_id"]), keys_of(held["sequence_id"]))
    _check_agrees(uri, one, held.take(pa.array(at[at >= 0])), measured.filter(pa.array(at >= 0)))
    failed = keys_of(rows.filter(rows["loss"].is_null())["sequence_id"])
    known = find(failed, keys_of(held["sequence_id"])) >= 0
    new = sorted(set(column_of(failed[~known]).to_pylist()) - target.failed().keys())
    lacking = measured.filter(pa.array(at < 0))
    return Lack(target, lacking, tuple(new), len(rows) - len(lacking) - len(new))


def _check_agrees(uri: str, one: Measured, ours: pa.Table, theirs: pa.Table) -> None:
    wrong = np.flatnonzero(LOSS.contradicts(ours, theirs))
    if len(wrong):
        first = int(wrong[0])
        key, here, there = ours["sequence_id"][first].as_py(), ours["loss"][first], theirs["loss"][first]
        raise StoreError(
            f"{uri}: {one.called}: of {len(ours):,} sequences that the store has too, {len(wrong):,} have another loss "
            f"(sequence {key.hex()}: {here.as_py():.6g} nats in the store, {there.as_py():.6g} in the table), by more "
            "than batches round differently: one of the two is not of this model; nothing was imported"
        )


def _parts(target: MeasurementStore) -> Iterator[pa.Table]:
    for files in bundles(target.parts()):
        yield target.read(file.uri for file in files)


def _description(one: Measured) -> dict[str, object]:
    return {
        "kind": one.kind,
        "kind_identity": kind_identity(one.kind, LOSS),
        "model": one.identity,
        "path": one.name,
        "adapter": one.adapter,
        "numerics": one.numerics,
    }


def _recipe_lines(card: TableCard) -> Iterator[str]:
    """Tell what of a recipe has to be as it was where the table was made."""
    yield "recipe    with these lines `davir select` needs no model, but the base's tokenizer:"
    yield from (f"  {line}" for line in models_lines(card.measurements))
    tokens = card.tokens.model_dump(mode="json", exclude_defaults=True)
    if tokens:
        yield f"  tokens: {yaml.safe_dump(tokens, default_flow_style=True, width=float('inf')).strip()}"
    yield from _engine_lines(card.measurements[0].numerics)
    yield from _tokenizer_lines(card)


def _engine_lines(first: dict[str, Any]) -> Iterator[str]:
    if choice_that_gave(first, EngineConfig()) is None:  # as no recipe asks for that does not name it
        settings = {name: first[name] for name in ("tensor_parallel_size", "engine_args") if first.get(name)}
        engine = {"type": first["engine"], **settings}
        yield f"  engine: {yaml.safe_dump(engine, default_flow_style=True, width=float('inf')).strip()}"


def _tokenizer_lines(card: TableCard) -> Iterator[str]:
    """Tell that a name may be that of a folder elsewhere: the tokenizer is read from what stands there."""
    for one in card.measurements:
        if "base" in one.models and "/" not in one.name:
            yield (
                f"base      {one.name!r} is of the hub, or of a folder where the table was made: there write your own "
                "path of its tokenizer, or its hub id"
            )
