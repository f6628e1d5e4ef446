"""The rows of a target, by subtask: what gradients are taken of."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np

from davir_ray.logprobs.engine import TokenSequence


@dataclass(frozen=True)
class TargetRow:
    """One row. rejected: the other side of a preference pair, where it is one."""

    chosen: TokenSequence
    rejected: TokenSequence | None

    @cached_property
    def digest(self) -> str:
        """Name its token ids and which of them count."""
        text = blake2b(digest_size=16)
        for one in (self.chosen, self.rejected):
            ids, marks = (one.ids, one.scored) if one is not None else (np.zeros(0), np.zeros(0))
            text.update(len(ids).to_bytes(8, "little"))
            text.update(np.asarray(ids, "<i4").tobytes() + np.packbits(marks.astype(bool)).tobytes())
        return text.hexdigest()


@dataclass(frozen=True)
class Subtask:
    """One of the things that a target asks for."""

    name: str
    rows: tuple[TargetRow, ...]


@dataclass(frozen=True)
class Target:
    """All rows of a target."""

    subtasks: tuple[Subtask, ...]

    @property
    def of_pairs(self) -> bool:
        """Whether its rows are preference pairs: each was read with its rejected side."""
        return all(row.rejected is not None for one in self.subtasks for row in one.rows)

    @cached_property
    def digest(self) -> str:
        """Name the subtasks in order, and their rows in any."""
        parts = [f"{one.name}\n{sorted(row.digest for row in one.rows)}" for one in self.subtasks]
        return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
