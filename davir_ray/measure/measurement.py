"""One pass of measuring: one kind and model over the rows of a corpus, and the plan that is written down for it."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from davir_ray import storage
from davir_ray.config import EngineConfig, ModelsConfig
from davir_ray.corpus.folds import Fold
from davir_ray.errors import DamagedPart
from davir_ray.logprobs.choice import Choice
from davir_ray.measure.kind import Aimed, Kind
from davir_ray.models.resolve import ResolvedModel, resolve, resolve_reference
from davir_ray.schema import View
from davir_ray.storage.damage import expecting
from davir_ray.storage.layout import MeasurementsLayout, PassLayout, numbered
from davir_ray.store.labels import check_label, check_schema, labelled
from davir_ray.store.measurements import MeasurementStore
from davir_ray.store.prepared import Prepared


@dataclass(frozen=True)
class Measurement:
    """Everything that measuring one kind under one model needs.

    model: what needs call it. stores: what has been measured already, under each kind that holds what this one does;
    its own first, which is added to. fold: the rows that it measures, where several references share the corpus.
    identity: the model's content, as the driver saw it. adapted: whether it is an adapter over the base. folder: where
    the plan and its progress are kept.
    """

    model: str
    kind: Kind
    fold: Fold | None
    views: tuple[View, ...]
    models: ModelsConfig
    engine: EngineConfig
    choice: Choice
    identity: str
    adapted: bool
    max_length: int
    chunk_tokens: int
    prepared: Prepared
    stores: tuple[MeasurementStore, ...]
    folder: str

    @property
    def label(self) -> str:
        """What people call this pass."""
        kind = "" if self.kind.name == "loss" else f"-{self.kind.name}"
        return f"{self.model}{kind}{'' if self.fold is None else f'-{self.fold.index}'}"

    @property
    def number(self) -> int:
        """Which of the models of that name it is of: 0 but where several share the corpus."""
        return self.fold.index if self.fold else 0

    @property
    def store(self) -> MeasurementStore:
        """What the pass adds to."""
        return self.stores[0]

    def failed(self) -> dict[bytes, str]:
        """Return the sequences that cannot be measured by this pass, with the reason; one of another kind may."""
        return self.store.failed()

    @property
    def order_column(self) -> pa.Schema:
        """The column by which measurements of a sequence are ordered."""
        return pa.schema([self.kind.columns.field(1)])

    @property
    def directions_uri(self) -> str:
        """Name the file of the target's directions, for kinds that are aimed at them."""
        return MeasurementsLayout(self.store.folder).directions

    def vectors_uri(self, target: str) -> str:
        """Name the file of what was measured of a target's own rows."""
        return MeasurementsLayout(self.store.folder).of_target(target)

    def ready_kind(self) -> Kind:
        """Return the kind with what was computed for all rows of the pass beforehand: the target's directions."""
        if not isinstance(self.kind, Aimed):
            return self.kind
        with expecting(self.directions_uri):
            data = storage.read_bytes(self.directions_uri)
        try:
            return self.kind.grounded(data)
        except ValueError as error:
            raise DamagedPart(self.directions_uri, str(error)) from error

    @property
    def plan_uri(self) -> str:
        """Name the file whose existence says that this pass is planned."""
        return PassLayout(self.folder).plan

    def journal_uri(self, *chunk: str) -> str:
        """Name the journal of a chunk, or the folder of all."""
        return storage.join(PassLayout(self.folder).journal, *(f"{name}.json" for name in chunk))

    def chunks_uri(self, split: int) -> str:
        """Name the file that holds the chunks of a split."""
        return numbered(PassLayout(self.folder).chunks, split)

    def labelled(self, table: pa.Table) -> pa.Table:
        """Let a table say that it is of this pass of this run."""
        return labelled(table, holds="a plan", of=self._pass)

    def read_work(self, uri: str, schema: pa.Schema) -> pa.Table:
        """Read a file of the plan. Raises `DamagedPart` if it is gone, or not what it should be."""
        with expecting(uri):
            table = storage.read_table(uri)
        check_schema(uri, table.schema, schema)
        check_label(uri, table.schema.metadata, holds="a plan", of=self._pass)
        return table

    @property
    def _pass(self) -> str:
        """Name the pass, wherever the folder of runs lies."""
        return "/".join(self.folder.split("/")[-3:])


PLAN = pa.schema(
    [
        ("split", pa.int32()),
        ("chunk", pa.int32()),  # position in the CHUNKS of the split
        ("name", pa.string()),
        ("sequences", pa.int64()),
        ("tokens", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Plan:
    """What one pass has to measure. `chunks` is a PLAN."""

    asked: int
    missing: int
    tokens: int
    chunks: pa.Table


def plan_of(table: pa.Table) -> Plan:
    """Sum up a PLAN."""
    sequences, tokens = (sum(table[name].to_pylist()) for name in ("sequences", "tokens"))
    return Plan(int(table.schema.metadata[b"asked"]), sequences, tokens, table)


@dataclass(frozen=True)
class Work:
    """What is left of a pass. chunks: those of its plan that nobody has measured yet, as rows.

    anew: whether the plan was made by this start. retried: sequences that engines had begun when an earlier start was
    stopped.
    """

    measurement: Measurement
    planned: Plan
    chunks: list[dict[str, Any]]
    anew: bool = True
    retried: int = 0

    @property
    def sequences(self) -> int:
        """How many sequences are left."""
        return sum(chunk["sequences"] for chunk in self.chunks)

    @property
    def tokens(self) -> int:
        """How many token ids these have."""
        return sum(chunk["tokens"] for chunk in self.chunks)


def model_of(measurement: Measurement) -> ResolvedModel:
    """Bring the model of a pass to this machine."""
    base = resolve(measurement.models.base)
    if measurement.model == "base":
        return base
    return resolve_reference(base, measurement.models.called(measurement.model, measurement.number))
