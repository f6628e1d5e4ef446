"""A score table: the measurements of a run in one Parquet file, without a text and without a token id.

    measurement   which of the measurements that the card lists the row is of
    sequence_id   hash of the sequence's ids and of which of them count
    loss          nats, summed over the tokens that count; null where the engine could not measure the sequence
    num_tokens    how many tokens those are; null likewise

Beside its columns the file has a card, which says of each measurement what it is of: kind, model, numerics. Their hash
is the fingerprint under which a store keeps them, so that whoever has the same corpus, tokenizer and recipe finds them
there. A table that was cut, edited, or put together by another program is refused. That is no signature: who makes a
table can make a false one. Compare the digest of the file with one that its maker gave you.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationError

from davir_ray import storage
from davir_ray.config import TokensConfig
from davir_ray.errors import DamagedPart, RecipeError, StoreError
from davir_ray.foreign_text import brief
from davir_ray.ids import keys_of
from davir_ray.logprobs.kinds import LOSS
from davir_ray.measure.kind import kind_identity
from davir_ray.schema import ID, role_of
from davir_ray.storage.typed import Written
from davir_ray.store.labels import check_label, check_schema, digest_of, labelled
from davir_ray.store.measurements import fingerprint

HOLDS = "a score table"
CARD = b"davir_score_table"
"""Where the file's metadata has the card, as JSON."""

SCORE_TABLE = pa.schema(
    [
        pa.field("measurement", pa.int32(), nullable=False),
        pa.field("sequence_id", ID, nullable=False),
        pa.field("loss", pa.float64()),
        pa.field("num_tokens", pa.int32()),
    ]
)


class Measured(Written):
    """What some rows of a score table are of."""

    models: tuple[str, ...]
    """What the run called the model: `base`, `reference`, which may be one a fold, or one of a series with its number;
    several where they are the same model."""
    name: str
    """Hub id or URI of the model; of a folder its last name."""
    adapter: str | None = None
    """The same of a LoRA adapter over it."""
    identity: str = Field(pattern="^[0-9a-f]{32}$")
    """Hash of the content of both."""
    kind: Literal["loss"] = "loss"
    """What was measured."""
    numerics: dict[str, Any]
    """All that decides the numbers besides the model: engine, its version, dtype, device."""
    fingerprint: str
    """Hash of kind, identity and numerics: the folder of a store that holds such measurements."""

    @property
    def called(self) -> str:
        """The names in words."""
        return " and ".join(self.models)

    @property
    def own_fingerprint(self) -> str:
        """The fingerprint that follows from the rest."""
        return fingerprint(kind_identity(self.kind, LOSS), self.identity, self.numerics)


class TableCard(Written):
    """What a score table says of itself."""

    schema_version: Literal[1] = 1
    """Version of this layout. A reader refuses another one."""
    davir_ray: str
    """Version of davir_ray."""
    run_id: str
    """The run that it was made of."""
    score: str
    """Name of the run's score."""
    tokens: TokensConfig
    """How rows became tokens."""
    measurements: tuple[Measured, ...] = Field(min_length=1)
    """What the rows are of, in the order of the column `measurement`."""


def write_score_table(uri: str, card: TableCard, rows: pa.Table) -> None:
    """Write a score table. rows: SCORE_TABLE."""
    rows = rows.cast(SCORE_TABLE).combine_chunks()
    rows = rows.replace_schema_metadata({CARD: card.model_dump_json().encode()})
    storage.write_table(uri, labelled(rows, holds=HOLDS, digest=digest_of(rows, SCORE_TABLE.names)))


def read_score_table(uri: str) -> tuple[TableCard, pa.Table]:
    """Read a score table. Raises `RecipeError` where there is none, `StoreError` for one that cannot be believed."""
    try:
        rows = storage.read_table(uri)
        label = check_label(uri, rows.schema.metadata, holds=HOLDS)
        check_schema(uri, rows.schema, SCORE_TABLE)
        card = _card(uri, rows.schema.metadata[CARD])
    except (FileNotFoundError, IsADirectoryError) as error:
        raise RecipeError(f"{uri}: there is no such file; expected a score table") from error
    except DamagedPart as damage:
        raise StoreError(
            f"{uri}: is no whole score table: {damage.reason}; `davir score-table export` makes one"
        ) from damage
    if label.get("digest") != digest_of(rows, SCORE_TABLE.names):
        raise StoreError(
            f"{uri}: holds other rows than were written: their digest does not fit; fetch it again"
        )
    _check_card(uri, card)
    _check_rows(uri, card, rows)
    return card, rows


def _card(uri: str, text: bytes) -> TableCard:
    try:
        return TableCard.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        found = brief(first["input"])
        raise DamagedPart(uri, f"its card cannot be read: {field}: found {found}: {first['msg']}") from error


def _check_card(uri: str, card: TableCard) -> None:
    for index, one in enumerate(card.measurements):
        if one.own_fingerprint != one.fingerprint:
            raise StoreError(
                f"{uri}: measurement {index} ({one.called}): its fingerprint is {one.fingerprint}, and from kind, "
                f"model and numerics follows {one.own_fingerprint}: `davir score-table export` writes no such table"
            )
    prints = Counter(one.fingerprint for one in card.measurements)
    twice = [name for name, count in prints.items() if count > 1]
    if twice:
        raise StoreError(f"{uri}: lists the fingerprint {twice[0]} twice")


def _check_rows(uri: str, card: TableCard, rows: pa.Table) -> None:
    """Refuse what no measuring gives: a row of nothing, a sequence twice, half a measurement, a loss that is none."""
    of = rows["measurement"].to_numpy()
    if len(of) and not (of.min() >= 0 and of.max() < len(card.measurements)):
        raise StoreError(
            f"{uri}: column `measurement`: expected 0 to {len(card.measurements) - 1}, found {of.max()}"
        )
    for index, one in enumerate(card.measurements):
        mine = rows_of(rows, index)
        if len(np.unique(keys_of(mine["sequence_id"]))) < len(mine):
            raise StoreError(f"{uri}: {one.called}: a sequence stands there twice")
        measured = mine.filter(mine["loss"].is_valid())
        if len(measured) != len(mine) - mine["num_tokens"].null_count or measured["num_tokens"].null_count:
            raise StoreError(f"{uri}: {one.called}: a row has a loss or a number of tokens, and not both")
        if flaws := LOSS.flaws(measured):
            row, what = min(flaws.items())
            key = measured["sequence_id"][row].as_py().hex()
            raise StoreError(f"{uri}: {one.called}: sequence {key}: {what}, which no model gives")


def rows_of(rows: pa.Table, measurement: int) -> pa.Table:
    """Return the rows of one of the measurements of a table."""
    return rows.filter(pa.array(rows["measurement"].to_numpy() == measurement)).combine_chunks()


def made_up_lines(card: TableCard) -> Iterator[str]:
    """Warn of what engine `hash` gave: it stands under the identity of a real model."""
    if any(one.numerics.get("engine") == "hash" for one in card.measurements):
        yield "warning   engine hash: the losses of this table are made up; they say nothing about models or rows"


def models_lines(measurements: Sequence[Measured]) -> list[str]:
    """Write the section `models` of a recipe that finds these measurements, a line each."""
    lines = ["models:"]
    for role, some in _by_role(measurements).items():
        named = [f"{{model_name_or_path: {_quoted(one.name)}, identity: {one.identity}}}" for one in some]
        lines.append(f"  {role}: {named[0] if len(named) == 1 else '[' + ', '.join(named) + ']'}")
    return lines


def _by_role(measurements: Sequence[Measured]) -> dict[str, list[Measured]]:
    found: dict[str, list[Measured]] = {}
    for one in measurements:
        for name in one.models:
            found.setdefault(role_of(name), []).append(one)
    return found


def _quoted(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
