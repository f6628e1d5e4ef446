"""Where the tokens of a row of a finished run lie, and what was measured of each. No Ray, no weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from davir_ray import storage
from davir_ray.corpus.folds import Fold
from davir_ray.errors import DamagedPart, RecipeError, StoreError
from davir_ray.ids import Keys, keys_of
from davir_ray.logprobs.kinds import OF_TOKENS
from davir_ray.measure.kind import implying, kind_identity, resolve_kind
from davir_ray.models.resolve import tokenizer_folder
from davir_ray.recipe import Recipe
from davir_ray.runs.locations import Places, read_places
from davir_ray.runs.record import RunRecord
from davir_ray.runs.rows import Shown, Which, find_rows
from davir_ray.runs.run import finished_run, holds_run, load_run_or_recipe
from davir_ray.schema import ID, Role, Status, View
from davir_ray.storage.damage import expecting
from davir_ray.storage.layout import MeasurementsLayout
from davir_ray.storage.sealed import read_object
from davir_ray.store.measurements import MeasurementStore, bundles, distinct, fingerprint
from davir_ray.tokens.rendering import Ids, Marks
from davir_ray.tokens.tokenizer import Tokenizer, load_tokenizer
from davir_ray.tokens.views import sequence_id

Values = NDArray[np.float64]

SAME_ID = 20
"""Rows of one id that are looked at."""
LOSS_STEPS = (0.1, 0.7, 2.0, 5.0)
"""Nats of a token where its colour changes: from p > 0.9, where the model is sure of it, over p = 0.5 to p < 0.007."""
DIFFERENCE_STEPS = (-0.7, -0.1, 0.1, 0.7)
"""The same of base - reference."""


def step_names(bounds: Sequence[float]) -> list[str]:
    """Name what lies below the first bound, between two, and from the last one up."""
    between = (f"{low:g} to {high:g}" for low, high in pairwise(bounds))
    return [f"below {bounds[0]:g}", *between, f"{bounds[-1]:g} up"]


@dataclass(frozen=True)
class ModelTokens:
    """What one model measured of a sequence with S counted tokens.

    loss: summed nats. values: column of `logprobs.kinds.OF_TOKENS` -> [S]; empty where only the sum was measured.
    """

    loss: float
    values: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class TokenRow:
    """A sequence of a run: ids int32 [T], which of them count bool [T], and what each model measured, by role."""

    title: Mapping[str, Any]
    ids: Ids
    counts: Marks
    models: Mapping[Role, ModelTokens]

    @property
    def num_tokens(self) -> int:
        """Count the tokens that count."""
        return int(self.counts.sum())

    @property
    def losses(self) -> dict[str, Values]:
        """Role -> losses of the counted tokens [S], in nats; `difference` -> base - reference, if both are known."""
        known: dict[str, Values] = {
            role: one.values["losses"].astype(np.float64)
            for role, one in self.models.items()
            if "losses" in one.values
        }
        if {"base", "reference"} <= set(known):
            known["difference"] = known["base"] - known["reference"]
        return known


def token_row(run_dir: str, asked: str, view: View) -> tuple[TokenRow, Tokenizer]:
    """Find the tokens of a row of a finished run with their losses, and what decodes them.

    asked: the example id in hex, or the user's own. Raises `RecipeError` where there are no losses of tokens.
    """
    if not holds_run(run_dir) and Path(run_dir).is_file():
        raise RecipeError(
            f"{run_dir}: is a recipe; --row shows a row of a finished run: give the run's folder"
        )
    run, record = finished_run(run_dir)
    found = _row_called(run_dir, storage.list_files(run.paths.scored, ".parquet"), asked)
    row = tokens_of(run.folder, record, found, view)
    if not row.losses:
        raise RecipeError(f"{run_dir}: {_why_none(found)}")
    return row, tokenizer_of(load_run_or_recipe(run_dir, ())[0])


def tokenizer_of(recipe: Recipe) -> Tokenizer:
    """Load what decodes the tokens of a run by its recipe."""
    return load_tokenizer(tokenizer_folder(recipe.models.base), recipe.tokens)


def tokens_of(folder: str, record: RunRecord, found: Shown, view: View) -> TokenRow:
    """Find the tokens of a row with what each model measured of them; of a model that did not, nothing.

    folder: of a finished run. found: the row as its scored table has it. Raises `StoreError` and `RecipeError` where
    the tokens are not there.
    """
    places = read_places(folder)
    if places is None:
        raise StoreError(
            f"{folder}: the tokens of its corpus are not in the store any more; `davir score` with --set output= and "
            "another folder prepares them again, and measures nothing that is measured"
        )
    key, ids, counts = _sequence(places, found, view)
    models = _models(record, found, key, len(np.flatnonzero(counts)))
    title = {name: found[name] for name in ("example_id", "id", "file", "row")} | {"view": str(view)}
    return TokenRow(title, ids, counts, models)


def _why_none(row: Shown) -> str:
    if row["status"] == Status.ENGINE_ERROR:
        return f"the row could not be measured: {row['reason']}"
    return (
        "the losses of the row's tokens were not kept; add `measure: {kind: token_loss}` to the recipe, and the next "
        "`davir score` measures again only what has no tokens"
    )


def _row_called(run_dir: str, parts: list[str], asked: str) -> Shown:
    """Find the row of an id; of repeats, the one that stands for them."""
    rows, _ = find_rows(parts, Which(id=asked), SAME_ID)
    if not rows:
        raise RecipeError(f"{run_dir}: no row of the run is called {asked}; `davir show` prints ids")
    if len(contents := dict.fromkeys(row["example_id"] for row in rows)) > 1:
        some = ", ".join(list(contents)[:3])
        raise RecipeError(
            f"--row {asked}: {len(contents)} rows are called that; name one by its example id: {some}"
        )
    return min(rows, key=lambda row: row["status"] == Status.DUPLICATE)


def _sequence(places: Places, row: Shown, view: View) -> tuple[bytes, Any, Any]:
    """Read a row's sequence of a view: its id, its token ids [T] and which of them count [T]."""
    prepared, split = places.prepared, places.split_of(row["file"], row["row"])
    examples = prepared.examples(split)
    known = pc.equal(examples["example_id"], pa.scalar(bytes.fromhex(row["example_id"]), ID))
    here = np.flatnonzero(pc.and_(known, pc.equal(examples["row"], row["row"])))
    if not len(here):
        raise DamagedPart(prepared.uri("examples", split), f"has no row {row['row']} as the run had it")
    table = prepared.sequences(split, tuple(View))
    table = table.filter(pc.equal(table["example"], int(here[0])))
    positions = dict(zip(table["view"].to_pylist(), table["position"].to_pylist(), strict=True))
    if not positions:
        raise RecipeError(f"the row has no tokens: {row['status']}: {row['reason']}")
    if view not in positions:
        raise RecipeError(f"--view {view}: of this row the run has {', '.join(positions)}")
    tokens = prepared.token_rows(split, [positions[view]])
    key, *lists = (tokens[name][0] for name in ("sequence_id", "ids", "scored"))
    ids, counts = (one.values.to_numpy(zero_copy_only=False) for one in lists)
    if sequence_id(ids, counts) != key.as_py():
        raise DamagedPart(prepared.uri("tokens", split), "holds other tokens than their sequence id says")
    return key.as_py(), ids, counts


def _models(record: RunRecord, row: Shown, key: bytes, num_tokens: int) -> dict[Role, ModelTokens]:
    """Return what each model of a run measured of a sequence; models that did not are left out.

    Whatever kind holds it serves, also one that another run asked for: the fingerprint tells its folder.
    """
    if not record.measurements:
        return {}
    folder = next(iter(record.measurements.values()))
    with expecting(uri := MeasurementsLayout(folder).description):
        numerics = read_object(uri)["numerics"]
    models: dict[Role, ModelTokens] = {}
    compared: tuple[Role, ...] = ("base", "reference")
    for role in compared:
        if not (identities := record.models.get(role)):
            continue
        identity = identities[_fold_of(row, len(identities))]
        for kind in reversed(implying("loss")):
            stored = resolve_kind(kind)
            name = fingerprint(kind_identity(kind, stored), identity, numerics)
            store = MeasurementStore(storage.join(folder.rsplit("/", 1)[0], name), stored)
            if (found := _measured(store, key, num_tokens)) is not None:
                models[role] = found
                break
    return models


def _fold_of(row: Shown, folds: int) -> int:
    """Tell which reference measured a row."""
    key = np.array([bytes.fromhex(row["example_id"])], dtype="S16")
    return next(index for index in range(folds) if Fold(index, folds).holds(key)[0])


def _measured(store: MeasurementStore, key: bytes, num_tokens: int) -> ModelTokens | None:
    """Read what a store has of a sequence. Only the parts that hold it are read whole."""
    holding = []
    for files in bundles(store.parts()):
        uris = [file.uri for file in files]
        holds = storage.concurrently(partial(_holds, key), uris)
        holding += [uri for uri, there in zip(uris, holds, strict=True) if there]
    rows = store.read(holding)
    rows = distinct(rows.filter(pc.equal(rows["sequence_id"], pa.scalar(key, ID))))
    if not len(rows):
        return None
    if rows["num_tokens"][0].as_py() != num_tokens:
        raise DamagedPart(
            holding[0], f"counts other tokens of a sequence than the corpus, which has {num_tokens}"
        )
    columns = [name for name in OF_TOKENS if name in rows.column_names]
    values = {name: rows[name][0].values.to_numpy() for name in columns}
    return ModelTokens(rows["loss"][0].as_py(), values)


def _holds(key: bytes, uri: str) -> bool:
    """Tell whether a part may hold a sequence; one that was merged meanwhile does: `store.read` finds where it went."""
    try:
        keys: Keys = keys_of(storage.read_table(uri, ["sequence_id"])["sequence_id"])
    except FileNotFoundError:
        return True
    return bool((keys == np.array(key, dtype="S16")).any())
