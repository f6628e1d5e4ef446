"""The plan of a pass: what the store does not hold is cut into chunks, which are written down.

look up -> sequences that are missing -> chunks
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from davir_ray import storage
from davir_ray.cluster.unexpected import stage
from davir_ray.errors import StoreError
from davir_ray.ids import Keys, keys_of
from davir_ray.measure.chunks import plan_chunks
from davir_ray.measure.measurement import PLAN, Measurement, Plan, plan_of
from davir_ray.store.ray_lookup import look_up


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


def count_interrupted(measurement: Measurement, todo: list[dict[str, Any]]) -> int:
    """Count the sequences of chunks that engines had begun when an earlier start was stopped."""
    if not todo:
        return 0
    begun = set(storage.list_files(measurement.journal_uri(), ".json"))
    return sum(row["sequences"] for row in todo if measurement.journal_uri(row["name"]) in begun)
