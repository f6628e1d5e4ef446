"""A finished run -> a score table: what its store holds of the run's own sequences, and of no other."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

import davir_ray
from davir_ray import storage
from davir_ray.config import ModelConfig, ModelsConfig, TokensConfig
from davir_ray.errors import RecipeError, StoreError
from davir_ray.ids import Keys, column_of, find, keys_of
from davir_ray.logprobs.kinds import LOSS
from davir_ray.measure.kind import implying, kind_identity, resolve_kind
from davir_ray.runs.locations import read_places
from davir_ray.runs.record import RunRecord
from davir_ray.runs.run import Run, load_run_or_recipe
from davir_ray.schema import View
from davir_ray.sharing.names import shareable_name
from davir_ray.sharing.score_table import SCORE_TABLE, Measured, TableCard, made_up_lines, write_score_table
from davir_ray.store.holdings import description_in
from davir_ray.store.measurements import MeasurementStore, bundles, distinct, fingerprint
from davir_ray.store.prepared import Prepared
from davir_ray.tokens.templates import TEMPLATES


def export_table(run_dir: str, uri: str) -> Iterator[str]:
    """Write the score table of a finished run, and tell what it holds in lines.

    Raises `RecipeError` for a run that measured no losses, `StoreError` where what it measured is gone.
    """
    run = Run.existing(run_dir)
    record = run.record(RunRecord)
    if record is None:
        raise RecipeError(f"{run_dir}: is not finished; {run.resume} goes on with it")
    recipe, _ = load_run_or_recipe(run_dir, ())
    keys = _sequences(run)
    found = list(_held(record, recipe.models, keys))
    if not found:
        kinds = ", ".join(record.measurements) or "nothing"
        raise RecipeError(
            f"{run_dir}: measured {kinds}; a score table holds losses of sequences, and there are none"
        )
    card = TableCard(
        davir_ray=davir_ray.__version__,
        run_id=record.run_id,
        score=record.score,
        tokens=_shareable(recipe.tokens),
        measurements=tuple(one for one, _ in found),
    )
    parts = [_numbered(index, rows) for index, (_, rows) in enumerate(found)]
    write_score_table(uri, card, pa.concat_tables(parts))
    yield from made_up_lines(card)
    for one, rows in found:
        failed = rows["loss"].null_count
        more = f", and {failed:,} that could not be measured" if failed else ""
        yield f"{one.called:<10}{len(rows) - failed:,} sequences of {one.name}{more}"
    yield f"written   {uri} ({storage.size_of(uri):,} bytes)"


def _sequences(run: Run) -> Keys:
    """Return the sequences of a run's corpus, sorted, each once."""
    places = read_places(run.folder)
    if places is None:
        raise StoreError(
            f"{run.folder}: the sequences of its corpus are not in the store any more; `davir score` with --set "
            "output= and another folder prepares them again, and measures nothing that is measured"
        )
    prepared = places.prepared
    found = storage.concurrently(lambda split: _of_split(prepared, split), range(prepared.splits))
    return np.unique(np.concatenate([np.empty(0, "S16"), *found]))


def _of_split(prepared: Prepared, split: int) -> Keys:
    return keys_of(prepared.sequences(split, tuple(View))["sequence_id"])


def _held(record: RunRecord, models: ModelsConfig, keys: Keys) -> Iterator[tuple[Measured, pa.Table]]:
    """Yield what each model of a run measured of these sequences; a model of which there are no losses is left out."""
    folders = {folder.rsplit("/", 1)[-1]: folder for folder in record.measurements.values()}
    root = next(iter(folders.values()), "").rsplit("/", 1)[0]
    numerics = _numerics(folders.values())
    for identity, names in _names(record.models).items():
        stores = list(_stores(root, identity, numerics))
        rows = _rows(stores, keys)
        if len(rows):
            name, fold = names[0]
            config = models.called(name, fold)
            yield _measured(config, identity, tuple(name for name, _ in names), numerics), rows


def _numerics(folders: Iterable[str]) -> dict[str, Any]:
    """Read how a run measured: one engine serves all of its passes."""
    if (folder := next(iter(folders), None)) is None:
        return {}
    if not (found := description_in(folder)):
        raise StoreError(
            f"{folder}: what it is of is not written there any more; `davir score` with the recipe writes it again"
        )
    return dict(found["numerics"])


def _names(models: Mapping[str, tuple[str, ...]]) -> dict[str, list[tuple[str, int]]]:
    """Return identity -> what it is called, and of several of that name which it is."""
    found: dict[str, list[tuple[str, int]]] = {}
    for name, identities in models.items():
        for fold, identity in enumerate(identities):
            found.setdefault(identity, []).append((name, fold))
    return found


def _stores(root: str, identity: str, numerics: Mapping[str, Any]) -> Iterator[MeasurementStore]:
    """Yield what holds losses of a model: its own kind first."""
    for name in implying("loss"):
        kind = resolve_kind(name)
        print_ = fingerprint(kind_identity(name, kind), identity, numerics)
        yield MeasurementStore(storage.join(root, print_), kind)


def _rows(stores: list[MeasurementStore], keys: Keys) -> pa.Table:
    """Return the sums and counts of sequences, sorted [N]; null where the engine could not measure one."""
    held = [LOSS.columns.empty_table()]
    for store in stores:
        for files in bundles(store.parts()):
            more = store.read(file.uri for file in files).select(LOSS.columns.names).cast(LOSS.columns)
            held.append(more.filter(pa.array(find(keys_of(more["sequence_id"]), keys) >= 0)))
    found = distinct(pa.concat_tables(held)).combine_chunks()
    failed = np.array(sorted(key for store in stores for key in store.failed()), dtype="S16")
    failed = failed[(find(failed, keys) >= 0) & (find(failed, keys_of(found["sequence_id"])) < 0)]
    nothing = pa.nulls(len(failed))
    schema = pa.schema([SCORE_TABLE.field(name) for name in LOSS.columns.names])
    missing = pa.table(
        [column_of(np.unique(failed)), nothing.cast(pa.float64()), nothing.cast(pa.int32())], schema=schema
    )
    return pa.concat_tables([found.cast(schema), missing]).combine_chunks()


def _numbered(index: int, rows: pa.Table) -> pa.Table:
    column = pa.array(np.full(len(rows), index, dtype=np.int32))
    return pa.table([column, *rows.columns], schema=SCORE_TABLE)


def _measured(
    config: ModelConfig, identity: str, names: tuple[str, ...], numerics: dict[str, Any]
) -> Measured:
    one = Measured(
        models=names,
        name=shareable_name(config.model_name_or_path),
        adapter=config.adapter_name_or_path and shareable_name(config.adapter_name_or_path),
        identity=identity,
        numerics=numerics,
        fingerprint="",
    )
    return one.model_copy(update={"fingerprint": one.own_fingerprint})


def _shareable(tokens: TokensConfig) -> TokensConfig:
    """Return how rows became tokens, with a template's file named without its folder."""
    named = tokens.template if tokens.template in TEMPLATES else shareable_name(tokens.template)
    return tokens.model_copy(update={"template": named})
