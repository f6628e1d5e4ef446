"""The Ray Data stage that measures what the store does not hold, for one model over the cluster.

    look up -> chunks (written down) -> actors with an engine -> parts of the store

A finished chunk is a finished part, so a stop loses only the chunks in flight. An engine that dies takes its actor
with it; Ray starts another, which takes the chunk up again (see trial.py).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError

from davir_ray import ray_session, storage
from davir_ray.config import EngineConfig, ModelsConfig
from davir_ray.errors import DavirError, EngineDied, EngineError, ModelError
from davir_ray.logprobs.choice import Choice, build_engine
from davir_ray.logprobs.chunks import plan_chunks
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.trial import Journal, Range, try_ranges
from davir_ray.models import resolve_pair
from davir_ray.observe.progress import Progress
from davir_ray.schema import ID, View
from davir_ray.scores.score import Role
from davir_ray.store.measurements import MeasurementStore
from davir_ray.store.ray_lookup import look_up
from davir_ray.tokens.prepared import Prepared

FAILED = pa.schema([("sequence_id", ID), ("reason", pa.string())])
READER_CPUS = 0.25
"""What reading token ids takes beside an engine."""


@dataclass(frozen=True)
class Measurement:
    """Everything that measuring one model needs.

    identity: the model's content, as the driver saw it. folder: where the plan and its progress are kept.
    """

    role: Role
    views: tuple[View, ...]
    models: ModelsConfig
    engine: EngineConfig
    choice: Choice
    identity: str
    max_length: int
    chunk_tokens: int
    prepared: Prepared
    store: MeasurementStore
    folder: str

    def chunks_uri(self, split: int) -> str:
        """Name the file that holds the chunks of a split."""
        return storage.join(self.folder, "chunks", f"{split:05d}.parquet")


@dataclass(frozen=True)
class Plan:
    """What one pass has to measure. `chunks` has the columns split, chunk, name, sequences, tokens."""

    asked: int
    missing: int
    tokens: int
    chunks: pa.Table


def plan(measurement: Measurement, sequences: int) -> Plan:
    """Find what the store does not hold and cut it into chunks; a plan that was written down is kept."""
    uri = storage.join(measurement.folder, "plan.parquet")
    if not storage.exists(uri):
        found = look_up(measurement.prepared, measurement.views, measurement.store, sequences)
        task = ray.remote(plan_split)
        parts = ray.get([task.remote(measurement, split, ref) for split, ref in enumerate(found)])
        asked = {b"asked": str(sum(count for count, _ in parts)).encode()}
        table = pa.concat_tables(chunks for _, chunks in parts)
        storage.write_table(uri, table.replace_schema_metadata(asked))
    table = storage.read_table(uri)
    asked_count = int(table.schema.metadata[b"asked"])
    return Plan(asked_count, sum(table["sequences"].to_pylist()), sum(table["tokens"].to_pylist()), table)


def plan_split(measurement: Measurement, split: int, found: pa.Table) -> tuple[int, pa.Table]:
    """Write down the chunks of one split; return how many distinct sequences it has, and a summary."""
    first = found.filter(found["first"])
    missing = first.filter(first["loss"].is_null())
    sequences = measurement.prepared.sequences(split, measurement.views)
    wanted = np.isin(sequences["position"].to_numpy(), missing["position"].to_numpy())
    chunks = plan_chunks(sequences.filter(pa.array(wanted)), measurement.chunk_tokens)
    storage.write_table(measurement.chunks_uri(split), chunks)
    lengths = [len(positions) for positions in chunks["positions"].to_pylist()]
    summary = {
        "split": pa.array([split] * len(chunks), pa.int32()),
        "chunk": pa.array(range(len(chunks)), pa.int32()),
        "name": chunks["name"],
        "sequences": pa.array(lengths, pa.int64()),
        "tokens": chunks["tokens"],
    }
    return len(first), pa.table(summary)


def settled(measurement: Measurement) -> frozenset[str]:
    """Name the chunks that are measured, or whose failures are written down."""
    failures = storage.list_files(storage.join(measurement.folder, "failed"), ".parquet")
    names = frozenset(uri.rsplit("/", 1)[-1].removesuffix(".parquet") for uri in failures)
    return names | measurement.store.part_names()


def measure(measurement: Measurement, planned: Plan) -> float:
    """Measure the chunks of a plan that are not settled; return the seconds that engines were busy.

    Raises `EngineError` if no engine can be had.
    """
    done = settled(measurement)
    todo = [row for row in planned.chunks.to_pylist() if row["name"] not in done]
    if not todo:
        return 0.0
    cpus = engine_cpus(measurement)
    replicas = min(engine_replicas(measurement, cpus), len(todo))
    progress = Progress(f"measure {measurement.role}", sum(row["tokens"] for row in todo), "tokens")
    dataset = (
        # A block a chunk, so that chunks are dealt out one by one and read while the engine works.
        ray.data.from_items(todo, override_num_blocks=len(todo))
        .map_batches(partial(read_chunk, measurement), batch_size=1, num_cpus=READER_CPUS)
        .map_batches(
            ChunkMeasurer,
            fn_constructor_args=(measurement, cpus),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=cpus,
            num_gpus=_gpus(measurement),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=replicas),
        )
    )
    busy = 0.0
    try:
        for batch in dataset.iter_batches(batch_size=None):
            progress.add(int(batch["tokens"].sum()))
            busy += float(batch["seconds"].sum())
    except RayError as error:
        cause = ray_session.root_cause(error)
        if isinstance(cause, DavirError):
            raise cause from error
        raise EngineError(f"measuring {measurement.role} stopped: {type(cause).__name__}: {cause}") from error
    return busy


def engine_cpus(measurement: Measurement) -> float:
    """Choose the CPUs that Ray holds for an engine: 1 beside a GPU, else a node's, less what its reader takes."""
    if measurement.engine.num_cpus:
        return measurement.engine.num_cpus
    return 1.0 if measurement.choice.device == "cuda" else ray_session.node_cpus() - READER_CPUS


def engine_replicas(measurement: Measurement, cpus: float) -> int:
    """Choose how many engines run at once: as asked, or as many as the cluster has room for."""
    if measurement.engine.replicas:
        return measurement.engine.replicas
    gpus = _gpus(measurement)
    room = ray_session.cluster_gpus() / gpus if gpus else ray_session.cluster_cpus() / (cpus + READER_CPUS)
    return max(1, int(room))


def _gpus(measurement: Measurement) -> int | None:
    return measurement.engine.tensor_parallel_size if measurement.choice.device == "cuda" else None


def read_chunk(measurement: Measurement, batch: dict[str, Any]) -> pa.Table:
    """Read the token ids of a chunk: one row, which travels and is measured as a whole."""
    (split,), (index,) = batch["split"].tolist(), batch["chunk"].tolist()
    chunks = storage.read_table(measurement.chunks_uri(split)).slice(index, 1)
    (positions,) = chunks["positions"].to_pylist()
    rows = measurement.prepared.token_rows(split, positions)
    return pa.table({"name": chunks["name"], **{name: [rows[name].to_pylist()] for name in rows.column_names}})


def sequences_of(row: dict[str, Any]) -> list[tuple[bytes, TokenSequence]]:
    """Return the sequences of a chunk, each with its id."""
    return [
        (key, TokenSequence(np.array(ids, dtype=np.int32), np.array(scored, dtype=bool)))
        for key, ids, scored in zip(row["sequence_id"], row["ids"], row["scored"], strict=True)
    ]


class ChunkMeasurer:
    """Holds an engine; each call measures one chunk and adds it to the store."""

    def __init__(self, measurement: Measurement, cpus: float) -> None:
        os.environ["OMP_NUM_THREADS"] = str(max(1, int(cpus + READER_CPUS)))
        self.measurement = measurement
        base, reference = resolve_pair(measurement.models)
        model = reference if measurement.role == "reference" and reference else base
        if model.identity != measurement.identity:
            raise ModelError(f"{model.model_path}: is not the model that the driver saw; name a revision")
        self.engine = build_engine(measurement.choice, measurement.engine, model, measurement.max_length)

    def __call__(self, batch: pa.Table) -> dict[str, Any]:
        """Measure a batch of one chunk."""
        (row,) = batch.to_pylist()
        sequences, started = sequences_of(row), monotonic()
        uri = storage.join(self.measurement.folder, "journal", f"{row['name']}.json")
        journal = Journal.open(uri, len(sequences))
        try:
            failed = try_ranges(journal, sequences, self._measure)
        except EngineDied:
            # Raising would leave Ray with a dead engine in a live actor; ending the process gets a new one.
            os._exit(1)
        if failed or not journal.undisturbed:
            self._write_failed(row["name"], [(sequences[i][0], failed[i]) for i in sorted(failed)])
        journal.close()
        tokens = sum(len(ids) for ids in row["ids"])
        return {"tokens": np.array([tokens]), "seconds": np.array([monotonic() - started])}

    def _measure(self, _: Range, sequences: Sequence[tuple[bytes, TokenSequence]]) -> None:
        logprobs = self.engine.logprobs([sequence for _, sequence in sequences])
        loss = np.array([-values.sum(dtype=np.float64) for values in logprobs])
        num_tokens = np.array([len(values) for values in logprobs], dtype=np.int32)
        self.measurement.store.write(np.array([key for key, _ in sequences], dtype="S16"), loss, num_tokens)

    def _write_failed(self, name: str, failed: list[tuple[bytes, str]]) -> None:
        columns = [pa.array([one[i] for one in failed], FAILED.types[i]) for i in range(2)]
        table = pa.Table.from_arrays(columns, schema=FAILED)
        storage.write_table(storage.join(self.measurement.folder, "failed", f"{name}.parquet"), table)


def failures(measurement: Measurement) -> dict[bytes, str]:
    """Return the sequences that could not be measured, with the reason."""
    uris = storage.list_files(storage.join(measurement.folder, "failed"), ".parquet")
    rows = [row for uri in uris for row in storage.read_table(uri).to_pylist()]
    return {row["sequence_id"]: row["reason"] for row in rows}
