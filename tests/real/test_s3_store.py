"""The upkeep of a store that lies on S3, as moto serves it on this machine."""

import json
import time

import pytest
from click.testing import CliRunner

from davir_ray import storage
from davir_ray.cli import main
from davir_ray.schema import EXAMPLES, TOKENS
from davir_ray.store.compaction import Compaction, compact
from davir_ray.store.holdings import note_use
from davir_ray.store.measurements import part_name
from davir_ray.store.prepared import Prepared
from davir_ray.store.prune import prunable
from tests.measured import FINGERPRINTS, held, keys, store_with

pytestmark = pytest.mark.real


def davir(*words: str, code: int = 0) -> str:
    told = CliRunner().invoke(main, ["store", *words])
    assert told.exit_code == code, told.output
    return told.output


def test_a_store_on_s3_is_told_of_checked_compacted_and_pruned(bucket):
    place = storage.join(bucket, "upkeep", "store")
    folders = [storage.join(place, "measurements", name) for name in FINGERPRINTS]
    store, other = (store_with(folder, ("ab", [1.0, 2.0]), ("bc", [2.0, 3.0])) for folder in folders)
    store.describe({"model": "hash", "path": "a model", "adapter": "lora", "numerics": {"dtype": "float32"}})
    prepared = Prepared(storage.join(place, "prepared", "d" * 32), ("split",))
    prepared.write(0, EXAMPLES.empty_table(), TOKENS.empty_table())
    note_use(prepared.folder, "a run")
    listed = [part.uri for part in store.parts()]
    info = json.loads(davir("info", place, "--json").splitlines()[-1])
    assert [(one["sequences"], one["parts"]) for one in info["models"]] == [(4, 2), (4, 2)]
    assert abs(info["models"][0]["newest_part"]) < 60
    held_bytes = sum(file.size for file in storage.files_below(prepared.folder))
    assert (info["prepared"][0]["splits"], info["prepared"][0]["bytes"]) == (1, held_bytes)

    davir("verify", place)
    assert compact(store) == Compaction(merged=2, made=1, sequences=3)
    assert len(store.parts()) == 1
    assert len(store.read(listed)) == 3, "a reader that listed the parts before finds them where they went"
    assert store.chunks_done() >= {part_name(keys("a", "b")), part_name(keys("b", "c"))}
    assert held(store)[1].tolist() == held(other)[1].tolist() == [1.0, 2.0, 3.0]

    torn = [other.parts()[0].uri, storage.join(prepared.folder, "tokens", "split.parquet")]
    for uri in torn:
        storage.write_atomic(uri, b"torn")
    told = davir("verify", place, code=6)
    assert all(uri in told for uri in torn)
    davir("verify", place, "--delete")
    assert len(other.parts()) == 1
    assert prepared.done() == frozenset()

    davir("prune", place, "--keep", FINGERPRINTS[0], "--yes")
    assert storage.list_folders(storage.join(place, "measurements")) == [store.folder]
    assert prunable(place, [], 3600) == []
    time.sleep(1.1)  # S3 counts whole seconds
    assert [one.name for one in prunable(place, [], 0)] == [FINGERPRINTS[0], "d" * 32]
