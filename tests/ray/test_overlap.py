"""Rows of a target in a corpus of several splits, on real Ray."""

import numpy as np
import pyarrow as pa
import pytest

from davir_ray.corpus.split import Split
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.schema import EXAMPLES, TOKENS
from davir_ray.store.prepared import Prepared
from davir_ray.target.overlap import Overlap
from davir_ray.target.ray_overlap import find_overlaps
from davir_ray.target.rows import FewShotRow
from davir_ray.tokens.views import sequence_id

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def write_split(prepared: Prepared, split: int, rows: list[np.ndarray]) -> None:
    examples, tokens = [], []
    for index, ids in enumerate(rows):
        texts = {"id": None, "source": "s", "group": "g", "status": "ok", "reason": None}
        examples.append({"row": index, "example_id": bytes([split + 1, index + 1] * 8), **texts})
        marks = np.arange(len(ids)) > 3
        known = {"example": index, "view": "response", "sequence_id": sequence_id(ids, marks)}
        sizes = {"num_tokens": int(marks.sum()), "length": len(ids)}
        tokens.append({**known, **sizes, "ids": ids.tolist(), "scored": marks.tolist()})
    prepared.write(split, pa.Table.from_pylist(examples, EXAMPLES), pa.Table.from_pylist(tokens, TOKENS))


def test_rows_of_the_target_are_found_in_every_split(tmp_path):
    rows = [np.random.default_rng(seed).integers(0, 5000, 60).astype(np.int32) for seed in range(9)]
    edited = rows[0].copy()
    edited[30] = 6000
    prepared = Prepared(str(tmp_path / "prepared" / "p"), ("one", "two"))
    write_split(prepared, 0, rows[1:4])
    write_split(prepared, 1, [*rows[4:8], edited, rows[8]])
    splits = [Split("s", f"{name}.jsonl", "json", 0, None, None) for name in ("a", "b")]
    target = [
        FewShotRow("hh", f"t.jsonl:{at}", bytes([9, at + 1] * 8), TokenSequence(ids, np.arange(60) > 3), None)
        for at, ids in enumerate((rows[0], rows[2]))
    ]
    found = find_overlaps(prepared, splits, target)
    assert (found.same, found.near) == (1, 1)
    assert found.named == (
        Overlap(target="t.jsonl:1", corpus="a.jsonl:1", near=False),
        Overlap(target="t.jsonl:0", corpus="b.jsonl:4", near=True),
    )
