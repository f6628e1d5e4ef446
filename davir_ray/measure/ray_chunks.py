"""What a worker does with a chunk: its token ids are read, then an engine measures it into the store."""

import os
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Any, cast

import numpy as np
import pyarrow as pa
import ray

from davir_ray import storage
from davir_ray.cluster.ray_session import encode_error
from davir_ray.cluster.unexpected import in_one_line
from davir_ray.errors import DamagedPart, DavirError, EngineDied, EngineError, ModelError
from davir_ray.ids import keys_of
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.measure.chunk_rows import CHUNK_ROWS, chunk_of, sequences_in, sequences_of
from davir_ray.measure.chunks import CHUNKS
from davir_ray.measure.kind import Measurer, SwitchingMeasurer, shared
from davir_ray.measure.loading import deaths_while_loading, load_watched
from davir_ray.measure.measurement import Measurement, model_of
from davir_ray.measure.trial import Journal, try_ranges
from davir_ray.measure.watchdog import Watchdog, end_process
from davir_ray.models.resolve import ResolvedModel
from davir_ray.store.measurements import part_name
from davir_ray.tokens.views import sequence_id

READER_CPUS = 0.25
"""What reading token ids takes beside an engine."""


def read_chunk(passes: Sequence[Measurement], batch: dict[str, Any]) -> pa.Table:
    """Read the token ids of a chunk: a CHUNK; an error of ours as text."""
    (at,), (split,), (index,) = (batch[name].tolist() for name in ("pass", "split", "chunk"))
    try:
        return chunk_of(at, *_read_chunk(passes[at], split, index))
    except Exception as problem:
        return chunk_of(at, "", CHUNK_ROWS.empty_table(), encode_error(problem))


def _read_chunk(measurement: Measurement, split: int, index: int) -> tuple[str, pa.Table]:
    """Return the name of a chunk, and its CHUNK_ROWS. Raises `DamagedPart` where it is not what the plan says."""
    uri = measurement.chunks_uri(split)
    chunks = measurement.read_work(uri, CHUNKS).slice(index, 1).to_pylist()
    rows = measurement.prepared.token_rows(split, chunks[0]["positions"]) if chunks else None
    if rows is None or part_name(keys_of(rows["sequence_id"])) != chunks[0]["name"]:
        raise DamagedPart(uri, f"chunk {index} is not the one of the plan")
    rows = rows.cast(CHUNK_ROWS)
    if any(sequence_id(one.ids, one.scored) != key for key, one in sequences_in(rows)):
        raise DamagedPart(measurement.prepared.uri("tokens", split), "has other ids than a sequence id says")
    return chunks[0]["name"], rows


class ChunkMeasurer:
    """Holds an engine; each call measures one chunk of one of its passes and adds it to the store.

    The engine is loaded by the first call, because Ray constructs in one thread and calls in another: OpenMP would keep
    threads for both, and with more of them than CPUs let them sleep where they wait for each other.
    """

    def __init__(self, passes: Sequence[Measurement], cpus: float) -> None:
        os.environ["OMP_NUM_THREADS"] = str(max(1, int(cpus + READER_CPUS)))
        self.passes = passes
        self.engine = HeldEngine(passes)

    def __call__(self, batch: pa.Table) -> dict[str, Any]:
        """Measure a batch of one chunk; an error of ours comes back as text."""
        (at,), (name,), (error,) = (batch[column].to_pylist() for column in ("pass", "name", "error"))
        one, sequences = self.passes[at], sequences_of(batch)
        deaths, fell, again, started = 0, "", 0, monotonic()
        try:
            if not error and not _is_measured(one, name):
                measurer, deaths, fell = self.engine.ready(one)
                started = monotonic()
                again, died = self._measure(one, name, sequences, measurer)
                deaths += died
        except EngineDied:
            # Raising would leave Ray with a dead engine in a live actor; ending the process gets a new one.
            end_process()
        except Exception as problem:
            error = encode_error(problem)
        told_of = {
            "sequences": len(sequences),
            "tokens": sum(len(sequence.ids) for _, sequence in sequences),
            "counted_tokens": sum(int(sequence.scored.sum()) for _, sequence in sequences),
            "engine_seconds": monotonic() - started,
            "engine_restarts": deaths,
            "retried_sequences": again,
            "fell": fell,
            "error": error,
        }
        return {column: np.array([value]) for column, value in told_of.items()}

    def _measure(
        self,
        one: Measurement,
        name: str,
        sequences: Sequence[tuple[bytes, TokenSequence]],
        measurer: Measurer,
    ) -> tuple[int, int]:
        """Measure a chunk and add it to the store; return how many sequences were begun once more, and deaths."""
        journal = Journal.open(one.journal_uri(name), len(sequences))
        watched = self.engine.watchdog.watch(measurer.measure, journal.note_stall)
        for current, measured in try_ranges(journal, [sequence for _, sequence in sequences], watched):
            _store(one, journal, current[0], [key for key, _ in sequences[slice(*current)]], measured)
        _settle(one, name, journal, [key for key, _ in sequences])
        return journal.again, journal.deaths_in_all


class HeldEngine:
    """The engine of an actor: loaded for the first pass that asks for it, and switched for those after it."""

    def __init__(self, passes: Sequence[Measurement]) -> None:
        self._passes = passes
        self._ready_for: Measurement | None = None
        self._measurer: Measurer
        self.watchdog: Watchdog

    def ready(self, one: Measurement) -> tuple[Measurer, int, str]:
        """Return what measures a pass, how often a process of this actor has died while it was made ready, and why.

        Raises `EngineError` and `ModelError` where it cannot be loaded, and `EngineDied` where it cannot be switched.
        """
        deaths, why = 0, ""
        if self._ready_for is not one:
            mark = _mark(one)
            deaths, why = deaths_while_loading(mark)
            make = self._load if self._ready_for is None else self._switched
            self._measurer = load_watched(mark, partial(make, one), one.engine.stall_seconds)
            self._ready_for, self.watchdog = one, Watchdog(one.engine.stall_seconds)
        return self._measurer, deaths, why

    def _load(self, one: Measurement) -> Measurer:
        model, kind = _seen_model(one), shared(one.kind)
        others = [_seen_model(other) for other in self._passes if other.adapted and other is not one]
        if kind and len(self._passes) > 1:
            return kind.open_for(one.choice, one.engine, [model, *others], one.max_length)
        return one.ready_kind().open(one.choice, one.engine, model, one.max_length)

    def _switched(self, one: Measurement) -> Measurer:
        """Switch the engine. Raises `EngineDied` whatever fails: the next process loads the model, or tells why."""
        try:
            cast(SwitchingMeasurer, self._measurer).switch(_seen_model(one))
        except Exception as error:
            why = error if isinstance(error, DavirError) else in_one_line(error)
            raise EngineDied(f"cannot go over to {one.label}: {why}") from error
        return self._measurer


def _is_measured(one: Measurement, name: str) -> bool:
    """Tell whether a chunk is in the store: from a process that died before Ray heard of it, or from another run."""
    if not one.store.holds(name):
        return False
    storage.delete(one.journal_uri(name))
    return True


def _mark(one: Measurement) -> str:
    """Name a file of this actor, which has the same id when Ray starts its process again."""
    return one.journal_uri(f"loading-{ray.get_runtime_context().get_actor_id()}")


def _seen_model(one: Measurement) -> ResolvedModel:
    """Bring the model of a pass to this machine. Raises `ModelError` if it is not the one that the driver saw."""
    model = model_of(one)
    if model.identity != one.identity:
        raise ModelError(f"{model.model_path}: is not the model that the driver saw; name a revision")
    return model


def _store(one: Measurement, journal: Journal, start: int, ids: Sequence[bytes], measured: pa.Table) -> None:
    """Add a range of a chunk to the store; a sequence for which the engine gives no measurement has failed."""
    flaws = one.kind.flaws(measured)
    for index, flaw in flaws.items():
        journal.fail(start + index, f"the engine gives {flaw}")
    sound = np.array([index not in flaws for index in range(len(ids))])
    if sound.any():
        keys = np.array(ids, dtype="S16")
        one.store.write(keys[sound], measured.filter(pa.array(sound)))


def _settle(one: Measurement, name: str, journal: Journal, ids: Sequence[bytes]) -> None:
    """Write down what failed. Raises `EngineError` where nothing worked: then it is not the rows' fault."""
    journal.close()
    if len(journal.failed) == len(ids) > 1:
        reason = next(iter(journal.failed.values()))
        raise EngineError(f"the engine fails on all {len(ids)} sequences of a chunk: {reason}")
    if journal.disturbed:
        failed = {ids[index]: reason for index, reason in sorted(journal.failed.items())}
        one.store.write_failed(name, failed)
