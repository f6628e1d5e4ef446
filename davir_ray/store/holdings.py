"""What a store holds, by folder: the measurements of models and the prepared corpora, and when a run last used them.

<store>/measurements/<fingerprint>/last-use.txt    the run that asked last; its age is how long nobody has
<store>/prepared/<digest>/used/<corpus>.txt         the parts that a corpus has there; likewise
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import time
from typing import Any

from davir_ray import storage
from davir_ray.errors import DamagedPart, RecipeError, StoreError
from davir_ray.progress import warn
from davir_ray.storage.damage import ASIDE
from davir_ray.storage.files import File
from davir_ray.storage.layout import MeasurementsLayout, PreparedLayout, StoreLayout
from davir_ray.storage.sealed import read_object
from davir_ray.store.labels import check_label
from davir_ray.store.measurements import MeasurementStore, StoredKind

LONGEST_WRITE = 24 * 3600.0
"""Seconds after which nobody is writing a file any more."""


def note_use(folder: str, run: str) -> None:
    """Note that a run begins to use a folder of the store."""
    storage.write_atomic(MeasurementsLayout(folder).last_use, run.encode())


def note_parts(folder: str, corpus: str, parts: Sequence[str]) -> None:
    """Note that a run begins to use these parts of a folder of prepared corpora."""
    storage.write_atomic(PreparedLayout(folder).used_by(corpus), "\n".join(parts).encode())


@dataclass(frozen=True)
class Holding:
    """One folder of a store, with all files below it, or with some of them if it is not `whole`."""

    folder: str
    files: tuple[File, ...]
    whole: bool = True

    @property
    def name(self) -> str:
        """The fingerprint of the model, or the digest of the corpus."""
        return self.folder.rsplit("/", 1)[-1]

    @property
    def size(self) -> int:
        """Count the bytes."""
        return sum(file.size for file in self.files)

    def unused(self) -> float:
        """Count the seconds since a run began to use the folder, or wrote to it."""
        now = time()
        aside = MeasurementsLayout(self.folder).merged + "/"  # a compaction is no use
        times = (file.modified for file in self.files if not file.uri.startswith(aside))
        return now - max(times, default=now)


def models_in(store: str, resolve: Callable[[str, str | None], StoredKind]) -> list[MeasurementStore]:
    """List what a store has measurements of, but for kinds that are not known here, which are told.

    resolve: the kind of a name and its identity, if that is known (`measure.kind.known_kind`); raises `RecipeError`.
    Raises `StoreError` where there is no store.
    """
    found = []
    for folder in model_folders(store):
        try:
            found.append(MeasurementStore(folder, resolve(*kind_in(folder))))
        except RecipeError as error:
            warn(f"passed over {folder}: {error}")
    return found


def model_folders(store: str) -> list[str]:
    """List the folders of measurements of a store. Raises `StoreError` where there is no store."""
    paths = StoreLayout(store)
    if not {paths.measurements, paths.prepared} & set(storage.list_folders(store)):
        raise StoreError(
            f"{store}: holds no store: neither {StoreLayout.measurements}/ nor {StoreLayout.prepared}/"
        )
    return storage.list_folders(paths.measurements)


def kind_in(folder: str) -> tuple[str, str | None]:
    """Name the kind of the measurements in a folder, and its identity if model.json has it.

    Failing model.json a part says its kind itself.
    """
    try:
        described = read_object(MeasurementsLayout(folder).description)
        return str(described["kind"]), described.get("kind_identity")
    except (FileNotFoundError, DamagedPart, KeyError):
        pass
    for part in storage.files_in(folder, ".parquet"):
        try:
            _, metadata = storage.read_footer(part.uri)
            return check_label(part.uri, metadata, holds="measurements")["kind"], None
        except (FileNotFoundError, DamagedPart, KeyError):
            continue
    return "loss", None  # nothing says otherwise, and nothing that is there can be read


def description_in(folder: str) -> dict[str, Any]:
    """Read what the measurements in a folder are of, as model.json says; nothing where that is damaged or not there.

    The next run writes it again.
    """
    try:
        found = read_object(MeasurementsLayout(folder).description)
    except (DamagedPart, FileNotFoundError):
        return {}
    return found if {"kind", "model", "path", "adapter", "numerics"} <= found.keys() else {}


def prepared_in(store: str) -> list[str]:
    """List the folders of prepared corpora of a store, one for the settings that they were prepared with."""
    return storage.list_folders(StoreLayout(store).prepared)


def model_holdings(store: str) -> list[Holding]:
    """List what a store holds of each model. Raises `StoreError` where there is no store."""
    return [_holding(folder) for folder in model_folders(store)]


def prepared_holdings(store: str) -> list[Holding]:
    """List the prepared corpora of a store, by the settings that they were prepared with."""
    return [_holding(folder) for folder in prepared_in(store)]


def unused_parts(holding: Holding, older_than: float) -> Holding:
    """Narrow prepared corpora down to what no corpus in use has: parts of files that have changed, or went."""
    now = time()
    old = [file for file in holding.files if now - file.modified > older_than]
    used = PreparedLayout(holding.folder).used + "/"
    lists = [file for file in set(holding.files) - set(old) if file.uri.startswith(used)]
    wanted = {
        part for file in lists for part in storage.read_bytes(file.uri).decode(errors="replace").split()
    }
    return replace(holding, files=tuple(file for file in old if file.stem not in wanted), whole=False)


def torn_files(store: str, older_than: float) -> Holding:
    """List what killed writers left in a store, and what was set aside; after a day nobody writes it any more."""
    end = time() - max(older_than, LONGEST_WRITE)
    aside = [file for file in storage.files_below(store) if file.uri.endswith(ASIDE)]
    left = tuple(file for file in [*storage.torn_below(store), *aside] if file.modified < end)
    return Holding(store, left, whole=False)


def _holding(folder: str) -> Holding:
    return Holding(folder, tuple(storage.files_below(folder)))
