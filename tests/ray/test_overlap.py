"""Rows of a target in a corpus of several splits, on real Ray."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from davir_ray.corpus.split import Split
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.schema import EXAMPLES, TOKENS
from davir_ray.store.prepared import Prepared
from davir_ray.target import ray_overlap
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


@pytest.fixture
def corpus(tmp_path):
    """A corpus of two splits, and a target: a row of it is in the first, and nearly one in the second."""
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
    return prepared, splits, target


SAME = Overlap(target="t.jsonl:1", corpus="a.jsonl:1", near=False)
NEAR = Overlap(target="t.jsonl:0", corpus="b.jsonl:4", near=True)


def test_rows_of_the_target_are_found_in_every_split(corpus):
    prepared, splits, target = corpus
    found = find_overlaps(prepared, splits, [0, 1], target)
    assert [(one.same, one.near, one.named) for one in found.values()] == [(1, 0, (SAME,)), (0, 1, (NEAR,))]


def test_only_splits_that_are_new_are_looked_at(corpus, monkeypatch, capsys):
    prepared, splits, target = corpus
    looked = []

    def counting(prepared, splits, wanted, rows):
        looked.append(list(wanted))
        return find_overlaps(prepared, splits, wanted, rows)

    monkeypatch.setattr(ray_overlap, "find_overlaps", counting)
    few_shot = SimpleNamespace(digest="few", rows=target)
    first = SimpleNamespace(digests=("one",), splits=splits[:1])
    both = SimpleNamespace(digests=("one", "two"), splits=splits)
    assert ray_overlap.overlaps_with(prepared, first, few_shot, "the corpus").named == (SAME,)
    found = ray_overlap.overlaps_with(prepared, both, few_shot, "the corpus")
    assert (found.same, found.near, found.named) == (1, 1, (SAME, NEAR))
    assert ray_overlap.overlaps_with(prepared, both, few_shot, "the corpus") == found
    ray_overlap.overlaps_with(prepared, both, SimpleNamespace(digest="others", rows=target), "the corpus")
    assert looked == [[0], [1], [], [0, 1]]
    told = capsys.readouterr().err
    assert "warning: target: t.jsonl:0 is nearly the same row as b.jsonl:4 of the corpus" in told
