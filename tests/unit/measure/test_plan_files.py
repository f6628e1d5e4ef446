"""The plan of a pass on disk: what is read back is what was planned, and a chunk is never another one."""

import pickle
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from ray.exceptions import RayTaskError

from davir_ray import storage
from davir_ray.cluster import ray_session
from davir_ray.config import EngineConfig, ModelsConfig
from davir_ray.errors import DamagedPart
from davir_ray.logprobs.choice import Choice
from davir_ray.logprobs.kinds import LOSS
from davir_ray.measure.chunk_rows import sequences_in
from davir_ray.measure.measurement import Measurement
from davir_ray.measure.ray_chunks import _read_chunk
from davir_ray.measure.ray_pass_plan import plan, plan_split
from davir_ray.schema import EXAMPLES, TOKENS, View
from davir_ray.store.measurements import MeasurementStore
from davir_ray.store.prepared import Prepared
from davir_ray.store.ray_lookup import FOUND
from davir_ray.tokens.views import sequence_id

NO_KEYS = np.array([], dtype="S16")


def tokens_of(count: int, *, start: int = 0) -> pa.Table:
    scored = np.array([False, True])
    rows = [np.array([start + index, 7], dtype=np.int32) for index in range(count)]
    columns = [
        list(range(count)),
        ["response"] * count,
        [sequence_id(ids, scored) for ids in rows],
        [1] * count,
        [2] * count,
        [ids.tolist() for ids in rows],
        [scored.tolist()] * count,
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, TOKENS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=TOKENS)


def found_for(split: int, count: int) -> pa.Table:
    columns = [[split] * count, list(range(count)), [False] * count, [True] * count]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, FOUND, strict=True)]
    return pa.Table.from_arrays(arrays, schema=FOUND)


@pytest.fixture
def measurement(tmp_path):
    """A pass over two splits, of five sequences and of none, planned in chunks of two."""
    prepared = Prepared(str(tmp_path / "prepared" / "p"), ("one", "two"))
    for split, count in enumerate((5, 0)):
        prepared.write(split, EXAMPLES.empty_table(), tokens_of(count))
    made = Measurement(
        model="base",
        kind=LOSS,
        fold=None,
        views=(View.RESPONSE,),
        models=ModelsConfig.model_validate({"base": "b"}),
        engine=EngineConfig(),
        choice=Choice("hash", "float32", "cpu", "made up"),
        identity="m",
        adapted=False,
        max_length=8,
        chunk_tokens=4,
        prepared=prepared,
        stores=(MeasurementStore(str(tmp_path / "m"), LOSS),),
        folder=str(tmp_path / "n-1" / "work" / "base"),
    )
    parts = [plan_split(made, split, found_for(split, count), NO_KEYS) for split, count in enumerate((5, 0))]
    asked = {b"asked": str(sum(count for count, _ in parts)).encode()}
    table = pa.concat_tables(chunks for _, chunks in parts).replace_schema_metadata(asked)
    storage.write_table(made.plan_uri, made.labelled(table))
    return made


def test_a_plan_is_read_back_with_its_chunks(measurement):
    planned = plan(measurement)
    assert (planned.asked, planned.missing, planned.tokens) == (5, 5, 10)
    rows = planned.chunks.to_pylist()
    chunks = [_read_chunk(measurement, row["split"], row["chunk"]) for row in rows]
    assert [name for name, _ in chunks] == [row["name"] for row in rows]
    assert sum(len(sequences_in(found)) for _, found in chunks) == 5


def test_a_plan_of_another_run_or_pass_is_none(measurement):
    for folder in ("n-2/work/base", "n-1/work/reference"):
        other = replace(measurement, folder=measurement.folder.replace("n-1/work/base", folder))
        storage.write_atomic(other.plan_uri, storage.read_bytes(measurement.plan_uri))
        with pytest.raises(DamagedPart, match=r"plan.parquet: says of: n-1/work/base"):
            plan(other)


def test_chunks_that_are_gone_or_too_few_are_damage(measurement):
    with pytest.raises(DamagedPart, match="chunk 3 is not the one of the plan"):
        _read_chunk(measurement, 0, 3)
    storage.delete(measurement.chunks_uri(0))
    with pytest.raises(DamagedPart, match=r"00000.parquet: is gone"):
        _read_chunk(measurement, 0, 0)


def test_token_ids_that_are_not_those_of_their_sequence_are_never_measured(measurement):
    uri = measurement.prepared.uri("tokens", 0)
    table = storage.read_table(uri)
    others = tokens_of(5, start=40)["ids"]
    storage.write_table(uri, table.set_column(5, TOKENS.field("ids"), others))
    with pytest.raises(DamagedPart, match="has other ids than a sequence id says"):
        _read_chunk(measurement, 0, 0)


def test_damage_keeps_its_file_on_the_way_from_a_worker():
    damage = DamagedPart("s3://b/x: y.parquet", "is torn")
    assert vars(pickle.loads(pickle.dumps(damage))) == vars(damage)
    crossed = RayTaskError("f", "traceback", damage).as_instanceof_cause()
    assert isinstance(crossed, DamagedPart)
    assert crossed.cause.uri == damage.uri
    with pytest.raises(DamagedPart, match="is torn") as caught:
        ray_session.raise_encoded(ray_session.encode_error(damage))
    assert caught.value.uri == damage.uri
