"""A run on a store that was compacted: nothing is measured again, and no byte of the result changes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from davir_ray import pipeline
from davir_ray.measure.chunks import CHUNK_TOKENS
from davir_ray.measure.kind import resolve_kind
from davir_ray.recipe import parse_recipe
from davir_ray.store.compaction import compact
from davir_ray.store.holdings import models_in

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def test_a_compacted_store_gives_the_same_bytes(tmp_path, tiny_models, monkeypatch):
    monkeypatch.setitem(CHUNK_TOKENS, "cpu", 200)
    (tmp_path / "corpus").mkdir()
    rows = [{"question": f"What is {i}?", "answer": f"It is {i}." * (1 + i % 5)} for i in range(60)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "corpus" / "rows.parquet")
    tree = {
        "corpus": {"paths": str(tmp_path / "corpus")},
        "models": {"base": tiny_models[0], "reference": tiny_models[1]},
        "engine": {"type": "hash", "num_cpus": 1},
        "store": str(tmp_path / "store"),
    }

    def score(output: str) -> tuple[dict, list[bytes]]:
        recipe = parse_recipe(tree | {"output": str(tmp_path / output)}, "compacted")
        record = pipeline.score(recipe, "compacted")
        folders = [Path(record.scored), Path(record.coreset["parquet"])]
        return record, [file.read_bytes() for folder in folders for file in sorted(folder.iterdir())]

    first, before = score("first")
    models = models_in(str(tmp_path / "store"), resolve_kind)
    assert all(len(model.parts()) > 3 for model in models)
    for model in models:
        compact(model)
        assert len(model.parts()) == 1
    second, after = score("second")
    assert second.measured == {"base": 0, "reference": 0}
    assert second.reused == first.measured == {"base": 60, "reference": 60}
    assert after == before != []
