"""The Ray Data stage that measures what the store does not hold, for one model over the cluster.

    look up -> chunks (written down) -> actors with an engine -> parts of the store

A finished chunk is a finished part, so a stop loses only the chunks in flight. An engine that dies, or stalls, takes
its actor with it; Ray starts another, which takes the chunk up again (see trial.py).
"""

import os
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from davir_ray import storage
from davir_ray.cluster import ray_session
from davir_ray.cluster.ray_session import encode_error
from davir_ray.cluster.unexpected import stage
from davir_ray.errors import DamagedPart, EngineDied, EngineError, ModelError, StoreError
from davir_ray.ids import Keys, keys_of
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.measure.chunk_rows import CHUNK_ROWS, chunk_of, sequences_of
from davir_ray.measure.chunks import CHUNKS, plan_chunks
from davir_ray.measure.kind import Measurer
from davir_ray.measure.loading import deaths_while_loading, load_watched
from davir_ray.measure.measurement import PLAN, Measurement, Plan, plan_of
from davir_ray.measure.ray_meter import COUNTED, Meter
from davir_ray.measure.trial import Journal, try_ranges
from davir_ray.measure.watchdog import Watchdog, end_process
from davir_ray.models.resolve import ResolvedModel, resolve, resolve_reference
from davir_ray.store.measurements import part_name
from davir_ray.store.ray_lookup import look_up
from davir_ray.tokens.views import sequence_id

READER_CPUS = 0.25
"""What reading token ids takes beside an engine."""


@stage(StoreError)
def plan(measurement: Measurement) -> Plan:
    """Find what the store does not hold and cut it into chunks; a plan that was written down is kept."""
    if not storage.exists(measurement.plan_uri):
        return plan_of(_made_plan(measurement))
    return plan_of(measurement.read_work(measurement.plan_uri, PLAN))


def _made_plan(measurement: Measurement) -> pa.Table:
    found = look_up_held(measurement)
    failed = ray.put(failed_keys(measurement))
    task = ray.remote(plan_split)
    parts = ray.get([task.remote(measurement, split, ref, failed) for split, ref in enumerate(found)])
    asked = {b"asked": str(sum(count for count, _ in parts)).encode()}
    table = pa.concat_tables(chunks for _, chunks in parts).replace_schema_metadata(asked)
    return measurement.labelled(table)


def look_up_held(measurement: Measurement) -> list[Any]:
    """Ask the store which sequences of a pass it holds; a FOUND table a split."""
    one = measurement
    return look_up(one.prepared, one.views, one.stores, one.order_column, one.fold)


def failed_keys(measurement: Measurement) -> Keys:
    """Return the sequences that are known to fail under this model."""
    return np.array(list(measurement.failed()), dtype="S16")


def plan_split(measurement: Measurement, split: int, found: pa.Table, failed: Keys) -> tuple[int, pa.Table]:
    """Write down the chunks of one split; return how many distinct sequences it has, and a summary.

    `failed` are the sequences that cannot be measured.
    """
    asked = asked_of(measurement, split, found, failed)
    chunks = plan_chunks(asked.filter(asked["missing"]), measurement.chunk_tokens)
    storage.write_table(measurement.chunks_uri(split), measurement.labelled(chunks))
    lengths = [len(positions) for positions in chunks["positions"].to_pylist()]
    counts = [pa.array([split] * len(chunks)), pa.array(range(len(chunks)))]
    columns = [*counts, chunks["name"], pa.array(lengths), chunks["tokens"]]
    summary = [column.cast(field.type) for column, field in zip(columns, PLAN, strict=True)]
    return len(asked), pa.Table.from_arrays(summary, schema=PLAN)


def asked_of(measurement: Measurement, split: int, found: pa.Table, failed: Keys) -> pa.Table:
    """Return the distinct sequences of a split (`Prepared.sequences`), with `missing`: whether to measure them.

    What is known to fail is not missing. A sequence is listed in the split that has it first.
    """
    first = found.filter(found["first"])
    sequences = measurement.prepared.sequences(split, measurement.views, measurement.fold)
    sequences = sequences.filter(pc.is_in(sequences["position"], first["position"]))
    absent = first.filter(pc.invert(first["held"]))["position"].to_numpy()
    missing = np.isin(sequences["position"].to_numpy(), absent)
    missing &= ~np.isin(keys_of(sequences["sequence_id"]), failed)
    return sequences.append_column("missing", pa.array(missing))


def chunks_left(measurement: Measurement, planned: Plan) -> list[dict[str, Any]]:
    """Return the chunks of a plan that nobody has measured yet, as rows."""
    done = measurement.store.chunks_done() if len(planned.chunks) else ()
    return [row for row in planned.chunks.to_pylist() if row["name"] not in done]


@stage(EngineError)
def measure(measurement: Measurement, planned: Plan, todo: list[dict[str, Any]], meter: Meter) -> None:
    """Measure the chunks of a plan that are to be done. Raises `EngineError` if no engine can be had."""
    if not len(planned.chunks):
        return
    storage.write_table(measurement.plan_uri, planned.chunks)
    # A journal tells of deaths while this driver lived: those of an earlier one may be its own.
    storage.delete(measurement.journal_uri())
    if not todo:
        return
    with meter.telling(), ray_session.batches(_dataset(measurement, todo)) as batches:
        for batch in batches:
            meter.add({name: batch[name].sum().item() for name in COUNTED})
            for text in batch["error"].tolist():
                ray_session.raise_encoded(text, EngineError)
    storage.await_listing(lambda: not chunks_left(measurement, planned), measurement.store.folder)


def count_interrupted(measurement: Measurement, todo: list[dict[str, Any]]) -> int:
    """Count the sequences of chunks that engines had begun when an earlier start was stopped."""
    if not todo:
        return 0
    begun = set(storage.list_files(measurement.journal_uri(), ".json"))
    return sum(row["sequences"] for row in todo if measurement.journal_uri(row["name"]) in begun)


def _dataset(measurement: Measurement, todo: list[dict[str, Any]]) -> ray.data.Dataset:
    """Chunks -> what came of each; a block a chunk, so that they are dealt out one by one and read in time."""
    cpus = engine_cpus(measurement)
    replicas = min(engine_replicas(measurement, cpus), len(todo))
    return (
        ray.data.from_items(todo, override_num_blocks=len(todo))
        .map_batches(partial(read_chunk, measurement), batch_size=1, num_cpus=READER_CPUS)
        .map_batches(
            ChunkMeasurer,
            fn_constructor_args=(measurement, cpus),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=cpus,
            num_gpus=engine_gpus(measurement) or None,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=replicas),
        )
    )


def engine_cpus(measurement: Measurement) -> float:
    """Choose the CPUs that Ray holds for an engine: 1 beside a GPU, else a node's, less what its reader takes."""
    most = ray_session.node_cpus() - READER_CPUS
    if measurement.engine.num_cpus:
        return min(measurement.engine.num_cpus, most)
    return 1.0 if measurement.choice.device == "cuda" else most


def engine_replicas(measurement: Measurement, cpus: float) -> int:
    """Choose how many engines run at once: as asked, or as many as the cluster has room for."""
    if measurement.engine.replicas:
        return measurement.engine.replicas
    gpus = engine_gpus(measurement)
    room = ray_session.cluster_gpus() / gpus if gpus else ray_session.cluster_cpus() / (cpus + READER_CPUS)
    return max(1, int(room))


def engine_gpus(measurement: Measurement) -> int:
    """Tell how many GPUs an engine takes."""
    return measurement.engine.tensor_parallel_size if measurement.choice.device == "cuda" else 0


def read_chunk(measurement: Measurement, batch: dict[str, Any]) -> pa.Table:
    """Read the token ids of a chunk: a CHUNK; an error of ours as text."""
    (split,), (index,) = batch["split"].tolist(), batch["chunk"].tolist()
    try:
        return _read_chunk(measurement, split, index)
    except Exception as problem:
        return chunk_of("", CHUNK_ROWS.empty_table(), encode_error(problem))


def _read_chunk(measurement: Measurement, split: int, index: int) -> pa.Table:
    uri = measurement.chunks_uri(split)
    chunks = measurement.read_work(uri, CHUNKS).slice(index, 1).to_pylist()
    rows = measurement.prepared.token_rows(split, chunks[0]["positions"]) if chunks else None
    if rows is None or part_name(keys_of(rows["sequence_id"])) != chunks[0]["name"]:
        raise DamagedPart(uri, f"chunk {index} is not the one of the plan")
    chunk = chunk_of(chunks[0]["name"], rows)
    if any(sequence_id(one.ids, one.scored) != key for key, one in sequences_of(chunk)):
        raise DamagedPart(measurement.prepared.uri("tokens", split), "has other ids than a sequence id says")
    return chunk


class ChunkMeasurer:
    """Holds an engine; each call measures one chunk and adds it to the store.

    The engine is loaded by the first call, because Ray constructs in one thread and calls in another: OpenMP would keep
    threads for both, and with more of them than CPUs let them sleep where they wait for each other.
    """

    def __init__(self, measurement: Measurement, cpus: float) -> None:
        os.environ["OMP_NUM_THREADS"] = str(max(1, int(cpus + READER_CPUS)))
        self.measurement = measurement
        self.measurer: Measurer | None = None
        self.watchdog = Watchdog(measurement.engine.stall_seconds)

    def __call__(self, batch: pa.Table) -> dict[str, Any]:
        """Measure a batch of one chunk; an error of ours comes back as text."""
        (name,), (error,) = batch["name"].to_pylist(), batch["error"].to_pylist()
        sequences = sequences_of(batch)
        deaths, again, started = 0, 0, monotonic()
        try:
            if self.measurer is None:
                deaths = deaths_while_loading(self._mark())
                self.measurer = load_watched(self._mark(), self._load, self.measurement.engine.stall_seconds)
                started = monotonic()
            if not error:
                again, died = self._measure(name, sequences, self.measurer)
                deaths += died
        except EngineDied:
            # Raising would leave Ray with a dead engine in a live actor; ending the process gets a new one.
            end_process()
        except Exception as problem:
            error = encode_error(problem)
        told_of = {
            "sequences": len(sequences),
            "tokens": sum(len(one.ids) for _, one in sequences),
            "counted_tokens": sum(int(one.scored.sum()) for _, one in sequences),
            "engine_seconds": monotonic() - started,
            "engine_restarts": deaths,
            "retried_sequences": again,
            "error": error,
        }
        return {name: np.array([value]) for name, value in told_of.items()}

    def _mark(self) -> str:
        """Name a file of this actor, which has the same id when Ray starts its process again."""
        return self.measurement.journal_uri(f"loading-{ray.get_runtime_context().get_actor_id()}")

    def _load(self) -> Measurer:
        measurement = self.measurement
        model = model_of(measurement)
        if model.identity != measurement.identity:
            raise ModelError(f"{model.model_path}: is not the model that the driver saw; name a revision")
        return measurement.ready_kind().open(
            measurement.choice, measurement.engine, model, measurement.max_length
        )

    def _measure(
        self, name: str, sequences: Sequence[tuple[bytes, TokenSequence]], measurer: Measurer
    ) -> tuple[int, int]:
        """Measure a chunk and add it to the store; return how many sequences were begun once more, and deaths."""
        uri = self.measurement.journal_uri(name)
        if self.measurement.store.holds(
            name
        ):  # from a process that died before Ray heard of it, or another run
            storage.delete(uri)
            return 0, 0
        journal = Journal.open(uri, len(sequences))
        watched = self.watchdog.watch(measurer.measure, journal.note_stall)
        for current, measured in try_ranges(journal, [one for _, one in sequences], watched):
            self._store(journal, current[0], [key for key, _ in sequences[slice(*current)]], measured)
        self._settle(name, journal, [key for key, _ in sequences])
        return journal.again, journal.deaths_in_all

    def _store(
        self,
        journal: Journal,
        start: int,
        ids: Sequence[bytes],
        measured: pa.Table,
    ) -> None:
        """Add a range of a chunk to the store; a sequence for which the engine gives no measurement has failed."""
        flaws = self.measurement.kind.flaws(measured)
        for index, flaw in flaws.items():
            journal.fail(start + index, f"the engine gives {flaw}")
        sound = np.array([index not in flaws for index in range(len(ids))])
        if sound.any():
            keys = np.array(ids, dtype="S16")
            self.measurement.store.write(keys[sound], measured.filter(pa.array(sound)))

    def _settle(self, name: str, journal: Journal, ids: Sequence[bytes]) -> None:
        """Write down what failed. Raises `EngineError` where nothing worked: then it is not the rows' fault."""
        journal.close()
        if len(journal.failed) == len(ids) > 1:
            reason = next(iter(journal.failed.values()))
            raise EngineError(f"the engine fails on all {len(ids)} sequences of a chunk: {reason}")
        if journal.disturbed:
            failed = {ids[index]: reason for index, reason in sorted(journal.failed.items())}
            self.measurement.store.write_failed(name, failed)


def model_of(measurement: Measurement) -> ResolvedModel:
    """Bring the model of a pass to this machine."""
    base = resolve(measurement.models.base)
    if measurement.model == "base":
        return base
    index = measurement.fold.index if measurement.fold else 0
    return resolve_reference(base, measurement.models.called(measurement.model, index))
