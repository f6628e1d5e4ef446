"""Tell what a store holds: sequences, parts and bytes by model, and the prepared corpora."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from time import time
from typing import Any

from davir_ray import storage
from davir_ray.errors import DamagedPart, StoreError
from davir_ray.progress import data_size, duration
from davir_ray.storage.files import File
from davir_ray.storage.layout import MeasurementsLayout, PreparedLayout
from davir_ray.store.holdings import Holding, description_in, model_holdings, prepared_holdings


@dataclass(frozen=True)
class ModelInfo:
    """The measurements of one model. Ages are in seconds; `sequences` counts one that was measured twice twice."""

    fingerprint: str
    description: dict[str, Any]
    sequences: int
    failed: int
    parts: int
    bytes: int
    newest_part: float | None
    unused: float


@dataclass(frozen=True)
class PreparedInfo:
    """One prepared corpus. `unused` is in seconds."""

    digest: str
    splits: int
    bytes: int
    unused: float


@dataclass(frozen=True)
class StoreInfo:
    """A store."""

    store: str
    models: list[ModelInfo]
    prepared: list[PreparedInfo]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)


def store_info(store: str) -> StoreInfo:
    """Look at a store. Raises `StoreError` if there is none, or if a part cannot be counted."""
    models = [_model(holding) for holding in model_holdings(store)]
    return StoreInfo(store, models, [_prepared(holding) for holding in prepared_holdings(store)])


def info_lines(info: StoreInfo) -> Iterator[str]:
    """Tell it in lines, one a model and one a prepared corpus."""
    yield f"store     {info.store}"
    for model in info.models:
        age = "none" if model.newest_part is None else f"newest {duration(model.newest_part)} old"
        yield (
            f"model     {model.fingerprint}  {_described(model.description)}: "
            f"{model.sequences:,} sequences, {model.failed:,} failed; {model.parts:,} parts ({age}), "
            f"{data_size(model.bytes)}; last used {duration(model.unused)} ago"
        )
    for one in info.prepared:
        sizes = f"{one.splits:,} splits, {data_size(one.bytes)}"
        yield f"prepared  {one.digest}  {sizes}; last used {duration(one.unused)} ago"


def _described(description: dict[str, Any]) -> str:
    """Write what model.json says on one line."""
    if not description:
        return f"no {MeasurementsLayout.description}"
    paths = " + ".join(filter(None, (description["path"], description["adapter"])))
    numerics = ", ".join(f"{name}={value}" for name, value in description["numerics"].items())
    return f"{description['kind']} of {paths} ({numerics})"


def _model(holding: Holding) -> ModelInfo:
    paths = MeasurementsLayout(holding.folder)
    files = [file for file in holding.files if file.uri.endswith(".parquet")]
    aside = paths.failed + "/"
    failed = [file for file in files if file.uri.startswith(aside)]
    parts = [file for file in files if not file.uri.startswith(aside)]
    return ModelInfo(
        fingerprint=holding.name,
        description=description_in(holding.folder),
        sequences=_rows(parts),
        failed=_rows(failed),
        parts=len(parts),
        bytes=holding.size,
        newest_part=time() - max(file.modified for file in parts) if parts else None,
        unused=holding.unused(),
    )


def _prepared(holding: Holding) -> PreparedInfo:
    examples = PreparedLayout(holding.folder).table("examples") + "/"
    splits = sum(file.uri.startswith(examples) for file in holding.files)
    return PreparedInfo(holding.name, splits, holding.size, holding.unused())


def _rows(files: list[File]) -> int:
    return sum(storage.concurrently(_rows_of, (file.uri for file in files)))


def _rows_of(uri: str) -> int:
    """Count the rows of a part; one that a compaction has taken meanwhile has none."""
    try:
        return storage.read_footer(uri)[0]
    except FileNotFoundError:
        return 0
    except DamagedPart as error:
        raise StoreError(f"{uri}: cannot be counted: {error}; try `davir store verify`") from error
