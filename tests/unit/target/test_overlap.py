"""Which rows of a corpus are rows of the target, against a comparison of every pair."""

import numpy as np
import pyarrow as pa

from davir_ray.coreset.rules.near_duplicates import signatures
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.runs.record import Overlap
from davir_ray.target.overlap import ALIKE, FIRST, Sought, overlaps_in, together
from davir_ray.target.rows import FewShotRow
from davir_ray.tokens.views import sequence_id

RNG = np.random.default_rng(4)


def draw(length: int) -> np.ndarray:
    return RNG.integers(0, 5000, length).astype(np.int32)


def marks(ids) -> np.ndarray:
    return np.arange(len(ids)) > 3


def key(number: int) -> bytes:
    return bytes([number + 1]) * 16


def target(*rows) -> list[FewShotRow]:
    """Make rows of a target of (number of the example, ids)."""
    return [
        FewShotRow("hh", f"t.jsonl:{index}", key(number), TokenSequence(ids, marks(ids)), None)
        for index, (number, ids) in enumerate(rows)
    ]


def split(*rows, first_row=10) -> tuple[pa.Table, pa.Table]:
    """Make the parts of a split of (number of the example, ids or None for a row that could not be read)."""
    examples = pa.table(
        {
            "row": pa.array(range(first_row, first_row + len(rows)), pa.int64()),
            "example_id": pa.array([key(number) for number, _ in rows], pa.binary(16)),
        }
    )
    there = [(index, ids) for index, (_, ids) in enumerate(rows) if ids is not None]
    tokens = pa.table(
        {
            "example": pa.array([index for index, _ in there for _ in range(2)], pa.int32()),
            "view": pa.array([view for _ in there for view in ("prompt", "response")], pa.string()),
            "sequence_id": pa.array(
                [one for _, ids in there for one in (b"p" * 16, sequence_id(ids, marks(ids)))], pa.binary(16)
            ),
            "ids": pa.array([one for _, ids in there for one in (ids[:4], ids)], pa.list_(pa.int32())),
        }
    )
    return examples, tokens.take(pa.array(RNG.permutation(len(tokens))))


def found(rows, *corpus):
    return overlaps_in(Sought.of(target(*rows)), "c.jsonl", *split(*corpus))


def test_the_same_content_the_same_tokens_and_nearly_the_same_are_named():
    one, other = draw(80), draw(80)
    edited = one.copy()
    edited[40] = 5001
    result = found(
        [(0, one), (1, other)],
        (5, draw(60)),
        (0, None),  # the content alone
        (6, one),  # the tokens alone
        (7, edited),
        (8, np.concatenate([one[:40], draw(40)])),  # half of it
    )
    assert result.named == (
        Overlap(target="t.jsonl:0", corpus="c.jsonl:11", near=False),
        Overlap(target="t.jsonl:0", corpus="c.jsonl:12", near=False),
        Overlap(target="t.jsonl:0", corpus="c.jsonl:13", near=True),
    )
    assert (result.same, result.near) == (2, 1)


def test_every_pair_is_compared_as_one_by_one():
    seeds = [draw(60) for _ in range(6)]
    corpus = []
    for number in range(40):
        ids = seeds[number % 6].copy()
        ids[RNG.integers(0, 60, number % 9)] = 6000
        corpus.append((number + 50, ids))
    result = found(list(enumerate(seeds)), *corpus)
    signed, sought = (signatures(list(some), ALIKE) for some in ([ids for _, ids in corpus], seeds))
    estimated = (signed[:, None] == sought[None]).mean(axis=2) >= ALIKE.threshold
    same = np.array([[np.array_equal(ids, one) for one in seeds] for _, ids in corpus])
    assert result.same == same.any(axis=1).sum() > 0
    assert result.near == (estimated.any(axis=1) & ~same.any(axis=1)).sum() > 0
    expected = [
        (f"t.jsonl:{m}", f"c.jsonl:{10 + n}", not same[n, m])
        for m in range(6)
        for n in np.flatnonzero(estimated[:, m])[:FIRST]
    ]
    assert [(one.target, one.corpus, one.near) for one in result.named] == expected


def test_splits_are_put_together_and_the_first_few_are_named():
    ids = draw(50)
    parts = [found([(0, ids)], *[(9, ids)] * 2) for _ in range(3)]
    result = together(parts)
    assert (len(result.named), result.same, result.near) == (FIRST, 6, 0)


def test_nothing_is_found_in_a_split_without_rows_or_of_others():
    for corpus in ([], [(3, draw(30))], [(3, None)]):
        assert found([(0, draw(30))], *corpus) == together([])
