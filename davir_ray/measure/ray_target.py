"""What a run has to know of the target's rows before the first row of its corpus: computed once, by one task, and kept.

<store>/measurements/<fingerprint>/directions.safetensors    where the target's gradients point, under this model
<store>/measurements/<fingerprint>/targets/<target>.parquet  the target's rows as vectors, under this model

Such a vector is of hidden states, or a projected gradient.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from davir_ray import storage
from davir_ray.cluster.unexpected import stage
from davir_ray.errors import EngineError, NotMeasured
from davir_ray.influence.projected import ProjectedKind
from davir_ray.influence.target import Target
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.measure.kind import Aimed
from davir_ray.measure.measurement import Measurement, model_of
from davir_ray.measure.ray_measure import engine_cpus, engine_gpus
from davir_ray.progress import duration, say
from davir_ray.storage.damage import expecting

T = TypeVar("T")
Vectors = dict[str, NDArray[np.float32]]
"""Subtask -> the vector of each of its rows [M, H]."""


@stage(EngineError)
def lay_directions(measurement: Measurement) -> float:
    """Compute the target's directions, where a pass needs them and the store has none; return the seconds it took."""
    if not isinstance(measurement.kind, Aimed) or storage.exists(measurement.directions_uri):
        return 0.0
    return _told(f"gradients of the target under {measurement.model}", measurement, _write_directions)


def _write_directions(measurement: Measurement) -> None:
    one, kind = measurement, measurement.kind
    assert isinstance(kind, Aimed)
    data = kind.ground_of(one.choice, one.engine, model_of(one), one.max_length)
    storage.write_atomic(one.directions_uri, data)


@stage(EngineError)
def target_vectors(measurement: Measurement, target: Target, *, may_measure: bool) -> tuple[Vectors, float]:
    """Return the vectors of the target's rows, and the seconds that measuring them took: 0 if the store had them.

    Raises `NotMeasured` where it lacks them and nothing may be measured.
    """
    uri, seconds = measurement.vectors_uri(target.digest), 0.0
    if not storage.exists(uri):
        if not may_measure:
            raise NotMeasured("the rows of the target are not measured; `davir score` measures them")
        what = f"rows of the target under {measurement.model}"
        seconds = _told(what, measurement, partial(_write_vectors, target=target))
    with expecting(uri):
        table = storage.read_table(uri)
    names = table["subtask"].to_pylist()
    lists = [np.array(one, dtype=np.float32) for one in table["vector"].to_pylist()]
    found = {name: [one for whose, one in zip(names, lists, strict=True) if whose == name] for name in names}
    return {name: np.stack(some) for name, some in found.items()}, seconds


def _write_vectors(measurement: Measurement, target: Target) -> None:
    """Measure the rows of the target, and keep their vectors."""
    one, names = measurement, [subtask.name for subtask in target.subtasks for _ in subtask.rows]
    if isinstance(one.kind, ProjectedKind):
        projected = one.kind.of_target(one.choice, model_of(one), target)
        vectors = pa.array([row for some in projected.values() for row in some], pa.list_(pa.float32()))
    else:
        vectors = _as_of_a_corpus(one, [row.chosen for subtask in target.subtasks for row in subtask.rows])
    _check_vectors(one, names, vectors)
    storage.write_table(one.vectors_uri(target.digest), pa.table({"subtask": names, "vector": vectors}))


def _check_vectors(measurement: Measurement, names: Sequence[str], vectors: Any) -> None:
    """Check that every vector points somewhere: beside one that does not, no row has a score. Raises `EngineError`."""
    for index, (name, vector) in enumerate(zip(names, vectors.to_pylist(), strict=True)):
        length = float(np.linalg.norm(np.array(vector, dtype=np.float64)))
        if not 0 < length < np.inf:
            number = names[:index].count(name)
            raise EngineError(
                f"target: row {number} of subtask {name}, counted from 0: its vector under {measurement.model} has the "
                f"length {length}, and points nowhere"
            )


def _as_of_a_corpus(one: Measurement, sequences: Sequence[TokenSequence]) -> Any:
    """Return the vectors that rows of a corpus would have."""
    measurer = one.kind.open(one.choice, one.engine, model_of(one), one.max_length)
    try:
        return measurer.measure(sequences)["vector"]
    finally:
        measurer.close()


def _told(what: str, measurement: Measurement, work: Callable[[Measurement], None]) -> float:
    """Do work in a process of its own, say so, and return the seconds it took."""
    say(what)
    started = monotonic()
    in_one_process(measurement, work)
    seconds = monotonic() - started
    say(f"{what}: done in {duration(seconds)}")
    return seconds


def in_one_process(measurement: Measurement, work: Callable[[Measurement], T]) -> T:
    """Do work in a process that holds what an engine does; return what it returns."""
    cpus = engine_cpus(measurement)
    # After one call the process ends: the model that it loaded would stay in memory beside the engines.
    remote: Any = ray.remote(max_calls=1, num_cpus=cpus, num_gpus=engine_gpus(measurement))
    task = remote(_in_process)
    done: T = ray.get(task.remote(work, measurement, cpus))
    return done


def _in_process(work: Callable[[Measurement], T], measurement: Measurement, cpus: float) -> T:
    os.environ["OMP_NUM_THREADS"] = str(max(1, int(cpus)))
    import torch  # after that: it reads how many threads there are when it is imported

    torch.set_num_threads(max(1, int(cpus)))
    return work(measurement)
