"""Work that meets damage begins again, as after a stop, once what is damaged is out of the way (see damage.py)."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from davir_ray.errors import DamagedPart, StalePlan, StoreError
from davir_ray.progress import warn
from davir_ray.storage.damage import set_aside
from davir_ray.store.measurements import MeasurementStore
from davir_ray.store.prepared import Prepared
from davir_ray.store.verify import damaged_parts

T = TypeVar("T")


def mended(
    work: Callable[[], T],
    prepared: Prepared,
    stores: Sequence[MeasurementStore],
    forget: Callable[[], None] = lambda: None,
) -> T:
    """Do work on a prepared corpus and on stores; return what it returns.

    forget: called before each new beginning. Raises `StoreError` if a file is damaged that was made anew.
    """
    seen = set[str]()
    while True:
        try:
            return work()
        except (DamagedPart, StalePlan) as error:
            found = getattr(error, "cause", error)  # what crossed from a Ray worker has the error in it
        forget()
        if (name := getattr(found, "uri", "")) in seen:
            raise StoreError(f"{found}, and was made anew before: is the storage sound?") from found
        seen.add(name)
        _mend(found, prepared, stores)


def _mend(found: DamagedPart | StalePlan, prepared: Prepared, stores: Sequence[MeasurementStore]) -> None:
    """Set aside what is damaged, and all parts that are beside it in the same folder of a store."""
    if isinstance(found, StalePlan):
        return warn(f"planning anew: {found}")
    for store in stores:
        if found.uri.startswith(f"{store.folder}/"):
            for damage in {one.uri: one for one in [found, *damaged_parts(store)]}.values():
                set_aside(damage)
            return
    if not found.uri.startswith(f"{prepared.folder}/"):
        return set_aside(found)
    for damage in {one.uri: one for one in [found, *prepared.mislabelled()]}.values():
        prepared.set_aside(damage)
