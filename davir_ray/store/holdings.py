"""What a store holds, by folder: the measurements of models and the prepared corpora, and when a run last used them.

<store>/measurements/<fingerprint>/last-use.txt    the run that asked last; its age is how long nobody has
<store>/prepared/<digest>/last-use.txt
"""

from dataclasses import dataclass
from time import time

from davir_ray import storage
from davir_ray.errors import StoreError
from davir_ray.storage import File
from davir_ray.store.measurements import MeasurementStore

LAST_USE = "last-use.txt"


def note_use(folder: str, run: str) -> None:
    """Note that a run begins to use a folder of the store."""
    storage.write_atomic(storage.join(folder, LAST_USE), run.encode())


@dataclass(frozen=True)
class Holding:
    """One folder of a store, with all files below it."""

    folder: str
    files: tuple[File, ...]

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
        aside = storage.join(self.folder, "merged/")  # a compaction is no use
        times = (file.modified for file in self.files if not file.uri.startswith(aside))
        return now - max(times, default=now)


def models_in(store: str) -> list[MeasurementStore]:
    """List the models that a store has measurements of. Raises `StoreError` where there is no store."""
    if not {"measurements", "prepared"} & {uri.rsplit("/", 1)[-1] for uri in storage.list_folders(store)}:
        raise StoreError(f"{store}: holds no store: neither measurements/ nor prepared/")
    return [MeasurementStore(uri) for uri in storage.list_folders(storage.join(store, "measurements"))]


def model_holdings(store: str) -> list[Holding]:
    """List what a store holds of each model. Raises `StoreError` where there is no store."""
    return [_holding(model.folder) for model in models_in(store)]


def prepared_holdings(store: str) -> list[Holding]:
    """List the prepared corpora of a store."""
    return [_holding(uri) for uri in storage.list_folders(storage.join(store, "prepared"))]


def _holding(folder: str) -> Holding:
    return Holding(folder, tuple(storage.files_below(folder)))
