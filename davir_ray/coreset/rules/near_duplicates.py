"""The rule `near_duplicates`: MinHash signatures of token shingles, and a walk that keeps the best of those alike.

A row's shingles are the runs of `shingle` tokens in it (a shorter row is one shingle), as a set. The
share of equal values in two signatures estimates the Jaccard similarity of two sets. Signatures and
index are datasketch's, which is imported where it is used: it takes a second.

Broder, "On the resemblance and containment of documents", 1997. N rows, P values in a signature.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from math import ceil
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field

from davir_ray.coreset.rules.best import exact
from davir_ray.coreset.rules.rule import Mask, Rows, Rule, TokenColumn
from davir_ray.ids import GOLDEN

Signature = NDArray[np.uint32]
SEED = 1
SCHEME = "affine32"
RECALL = 0.9
"""How likely the index must be to find a pair that is just similar enough."""


class NearDuplicatesRule(Rule):
    """Drop a row whose token shingles are nearly those of a better row (MinHash, estimated Jaccard)."""

    type: Literal["near_duplicates"] = "near_duplicates"
    threshold: float = Field(0.8, gt=0, lt=1)
    """Estimated similarity of two sets of shingles from which on the lower-ranked row goes."""
    num_perm: int = Field(128, ge=16, le=1024)
    """Values in a signature: more of them estimate better, and take more room."""
    shingle: int = Field(5, ge=1)
    """Tokens a shingle."""

    @property
    def token_column(self) -> TokenColumn:
        """The signature of each row, as the bytes of its values."""
        return TokenColumn(f"signature_{self.num_perm}_{self.shingle}", 4 * self.num_perm, self._signed)

    def _signed(self, ids: Sequence[NDArray[np.int32]]) -> list[bytes]:
        return [row.tobytes() for row in signatures(ids, self)]

    def keep(self, rows: Rows) -> Iterator[Mask]:
        """Keep a row unless it is nearly a better row that was kept: the best of those alike stands for them.

        The index of kept rows stays in memory (6 KB a row with 128 values, 0.1 ms a row): for a large corpus, put
        a rule that leaves fewer rows first.
        """
        kept, name = KeptRows(self), self.token_column.name
        for table in rows(name):
            values = np.frombuffer(b"".join(table[name].to_pylist()), dtype=np.uint32)
            yield np.array([kept.add(row) for row in values.reshape(len(table), self.num_perm)], dtype=bool)


def signatures(ids: Sequence[NDArray[np.int32]], rule: NearDuplicatesRule) -> Signature:
    """Return the signatures of rows of token ids [N, P]: the same on any machine and in any order."""
    from datasketch import MinHash

    sketches = MinHash.generator(
        (_shingles(row, rule.shingle).tolist() for row in ids),
        num_perm=rule.num_perm,
        seed=SEED,
        scheme=SCHEME,
        hashfunc=int,
    )
    values = np.empty((len(ids), rule.num_perm), dtype=np.uint32)
    for index, sketch in enumerate(sketches):
        values[index] = sketch.hashvalues
    return values


def _shingles(ids: NDArray[np.int32], size: int) -> NDArray[np.uint32]:
    """Hash each run of `size` ids to 32 bits, and return the distinct hashes."""
    if len(ids) == 0:
        return np.zeros(0, dtype=np.uint32)
    windows = sliding_window_view(ids.astype(np.uint64), min(size, len(ids)))
    state = np.full(len(windows), 0xCBF29CE484222325, dtype=np.uint64)
    for column in windows.T:
        state = (state ^ column) * GOLDEN
        state ^= state >> np.uint64(29)
    return np.unique((state >> np.uint64(32)).astype(np.uint32))


class KeptRows:
    """The rows kept so far, found by the bands of their signatures that equal those of another row."""

    def __init__(self, rule: NearDuplicatesRule) -> None:
        from datasketch import LeanMinHash, MinHashLSH

        self.equal_values = ceil(exact(rule.threshold) * rule.num_perm)
        self.index = MinHashLSH(num_perm=rule.num_perm, params=bands(rule.threshold, rule.num_perm))
        self.sketch = partial(LeanMinHash, seed=SEED, scheme=SCHEME)
        self.signatures: list[Signature] = []

    def add(self, signature: Signature) -> bool:
        """Keep a row and return True, unless a row that was kept is estimated to be similar enough."""
        sketch = self.sketch(hashvalues=signature)
        candidates = [self.signatures[key] for key in self.index.query(sketch)]
        if any(np.count_nonzero(other == signature) >= self.equal_values for other in candidates):
            return False
        self.index.insert(len(self.signatures), sketch, check_duplication=False)
        self.signatures.append(signature.copy())  # a view would hold the whole part
        return True


def bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """Return how many bands to cut a signature into, and of how many values.

    Candidates share a band, which rows of Jaccard similarity j do with probability 1 - (1 - j**size)**count.
    These are the fewest and longest bands that find a pair at the threshold with probability RECALL, or
    the shortest there are. datasketch's own choice weighs false candidates as much as missed pairs; here
    they only cost time, since each is checked.
    """
    for count in range(2, num_perm):
        size = num_perm // count
        if 1 - (1 - threshold**size) ** count >= RECALL:
            return count, size
    return num_perm, 1
