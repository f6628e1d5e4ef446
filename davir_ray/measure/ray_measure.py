"""The Ray Data stage that measures what the store does not hold, for one model after the other over the cluster.

    chunks (written down) -> actors with an engine -> parts of the store

Passes that one engine can measure go through the same actors: an engine is switched to the next model where the chunks
of its pass begin. A finished chunk is a finished part, so a stop loses only the chunks in flight. An engine that dies,
or stalls, takes its actor with it; Ray starts another, which takes the chunk up again (see trial.py).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import islice
from typing import Any

import ray.data

from davir_ray import storage
from davir_ray.cluster import ray_session
from davir_ray.cluster.unexpected import stage
from davir_ray.errors import EngineError
from davir_ray.measure.measurement import Measurement, Work
from davir_ray.measure.ray_chunks import READER_CPUS, ChunkMeasurer, read_chunk
from davir_ray.measure.ray_meter import COUNTED, Meter
from davir_ray.measure.ray_pass_plan import chunks_left
from davir_ray.progress import warn


@stage(EngineError)
def measure(works: Sequence[Work], turn: Callable[[Work], AbstractContextManager[Meter]]) -> None:
    """Measure what is left of some passes with the same engines, one pass after the other.

    turn: the context in which a pass is measured, and what counts it. Raises `EngineError` if no engine can be had.
    """
    for work in works:
        _begin(work)
    with _results(works) as results:
        for work in works:
            with turn(work) as meter:
                for counted in islice(results, len(work.chunks)):
                    meter.add(counted)
                _await_parts(work)


def _begin(work: Work) -> None:
    """Write down what a pass is to measure."""
    one = work.measurement
    if len(work.planned.chunks):
        storage.write_table(one.plan_uri, work.planned.chunks)
        # A journal tells of deaths while this driver lived: those of an earlier one may be its own.
        storage.delete(one.journal_uri())


def _await_parts(work: Work) -> None:
    """Wait until the storage lists what was written."""
    one = work.measurement
    if work.chunks:
        storage.await_listing(lambda: not chunks_left(one, work.planned), one.store.folder)


@contextmanager
def _results(works: Sequence[Work]) -> Iterator[Iterator[dict[str, float]]]:
    """Let engines measure all chunks that are left; yield what each tells, in the order of the passes."""
    if not any(work.chunks for work in works):
        yield iter(())
        return
    with ray_session.batches(_dataset(works)) as batches:
        yield _counted(batches)


def _counted(batches: Iterator[Any]) -> Iterator[dict[str, float]]:
    """Yield what each chunk tells, by the names in `COUNTED`. Raises what went wrong with it."""
    for batch in batches:
        for index, error in enumerate(batch["error"].tolist()):
            ray_session.raise_encoded(error, EngineError)
            if fell := batch["fell"][index]:
                warn(f"an engine's process ended, and another went on: {fell}")
            yield {name: batch[name][index].item() for name in COUNTED}


def _dataset(works: Sequence[Work]) -> ray.data.Dataset:
    """Chunks -> what came of each; a block a chunk, so that they are dealt out one by one and read in time."""
    works = [work for work in works if work.chunks]
    passes = [work.measurement for work in works]
    todo = [{"pass": at, **chunk} for at, work in enumerate(works) for chunk in work.chunks]
    cpus = engine_cpus(passes[0])
    replicas = min(engine_replicas(passes[0], cpus), max(len(work.chunks) for work in works))
    dataset = (
        ray.data.from_items(todo, override_num_blocks=len(todo))
        .map_batches(partial(read_chunk, passes), batch_size=1, num_cpus=READER_CPUS)
        .map_batches(
            ChunkMeasurer,
            fn_constructor_args=(passes, cpus),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=cpus,
            num_gpus=engine_gpus(passes[0]) or None,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=replicas),
        )
    )
    # Else engines would be switched to and fro where the chunks of two passes meet. An actor may still take two chunks
    # out of order, when the first is on its way from another node.
    dataset.context.execution_options.preserve_order = len(works) > 1
    return dataset


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
