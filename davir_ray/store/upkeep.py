"""What `davir store verify`, `compact` and `prune` do, told line by line as it is done."""

from collections.abc import Iterator, Sequence
from itertools import chain

from davir_ray import storage
from davir_ray.errors import DamagedPart
from davir_ray.observe.progress import data_size, duration
from davir_ray.store.compaction import compact
from davir_ray.store.holdings import Holding, models_in, prepared_in
from davir_ray.store.prune import prunable
from davir_ray.store.verify import Damage, verify, verify_prepared


def verify_lines(store: str, *, delete: bool) -> Iterator[str]:
    """Check every part of a store. Raises `DamagedPart` at the end if there are damaged parts and they stay."""
    damaged: list[Damage] = []
    for damage in chain(*map(verify, models_in(store)), *map(verify_prepared, prepared_in(store))):
        damaged.append(damage)
        yield f"damaged   {damage.reason}"
    if damaged and not delete:
        raise DamagedPart(f"{store}: {len(damaged):,} damaged parts; --delete removes them")
    for damage in damaged:
        yield f"removing  {damage.file.uri}"
        storage.delete(damage.file.uri)
    yield f"sound     {store}" + ("; the next run makes what is gone" if damaged else "")


def compact_lines(store: str) -> Iterator[str]:
    """Merge the small parts of every model of a store."""
    for model in models_in(store):
        done = compact(model)
        yield f"compacted {model.folder}: {done.merged:,} parts into {done.made:,} ({done.sequences:,} sequences)"


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
