"""What `davir store verify`, `compact` and `prune` do, told line by line as it is done."""

from collections.abc import Iterator, Sequence
from itertools import chain

from davir_ray import storage
from davir_ray.cli.verify_runs import places, verify_run
from davir_ray.errors import DamagedPart, StoreError
from davir_ray.measure.kind import known_kind
from davir_ray.progress import data_size, duration
from davir_ray.storage.layout import NightsLayout
from davir_ray.store.compaction import compact
from davir_ray.store.holdings import Holding, models_in, prepared_in
from davir_ray.store.prune import prunable
from davir_ray.store.verify import verify, verify_prepared


def verify_lines(path: str, *, delete: bool) -> Iterator[str]:
    """Check a store; or of a run, or of all runs of a recipe, their store and their own files (see `verify_run`).

    Raises `StoreError` at the end if there is damage, and it stays: nights.jsonl always does, since nothing makes it
    again.
    """
    store, runs = places(path)
    damaged: list[DamagedPart] = []
    stores = (
        [*map(verify, models_in(store, known_kind)), *map(verify_prepared, prepared_in(store))]
        if store
        else []
    )
    for damage in chain(*stores, *map(verify_run, runs)):
        damaged.append(damage)
        yield f"damaged   {damage}"
    going = [damage for damage in damaged if delete and not damage.uri.endswith(f"/{NightsLayout.lines}")]
    for damage in going:
        yield f"removing  {damage.uri}"
        storage.delete(damage.uri)
    if len(going) < len(damaged):
        raise StoreError(
            f"{path}: {len(damaged) - len(going):,} damaged files; the next run makes again what it needs, and "
            "--delete removes what can be made again"
        )
    yield f"sound     {path}" + ("; the next run makes what is gone" if damaged else "")


def compact_lines(store: str) -> Iterator[str]:
    """Merge the small parts of every model of a store."""
    for model in models_in(store, known_kind):
        done = compact(model)
        what = f"{done.merged:,} parts into {done.made:,} ({done.sequences:,} sequences)"
        yield f"compacted {model.folder}: {what if done.made else 'nothing to merge'}"


def prune_lines(store: str, keep: Sequence[str], older_than: float | None, *, remove: bool) -> Iterator[str]:
    """Tell which folders of a store are no longer wanted (see prune.py), and remove them if told to."""
    holdings = prunable(store, keep, older_than)
    for one in holdings:
        what = one.folder if one.whole else f"{len(one.files):,} files of {one.folder}"
        last = f"last used {duration(one.unused())} ago"
        yield f"{'removing' if remove else 'would go':<10}{what}  {data_size(one.size)}; {last}"
        if remove:
            _remove(one)
    total = data_size(sum(one.size for one in holdings))
    yield f"{'removed' if remove else 'in all':<10}{total}" + (
        "" if remove or not holdings else "; --yes removes it"
    )


def _remove(holding: Holding) -> None:
    if holding.whole:
        storage.delete(holding.folder)
    else:
        storage.concurrently(storage.delete, [file.uri for file in holding.files])
