"""The rule `round_robin`: the best rows of each subtask of the target, in turn."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from davir_ray.coreset.rules.best import share_of
from davir_ray.coreset.rules.rule import Mask, Rows, Rule
from davir_ray.schema import OF_SUBTASK
from davir_ray.scores import SCORES


class RoundRobinRule(Rule):
    """Take in turn the best row that is left for each subtask of the target, by the row's score for it.

    The largest score of all subtasks, which ranks the rows, may be that of one subtask everywhere. RDS+ takes turns by
    row of the target (arXiv 2503.01807), here they go by subtask: one of many rows takes no more than one of few.
    """

    cuts: ClassVar[Literal["groups"]] = "groups"

    type: Literal["round_robin"] = "round_robin"
    fraction: float | None = Field(None, gt=0, le=1)
    """Share of the rows that are kept; rounded down, but at least one."""
    count: int | None = Field(None, ge=1)
    """Number of rows that are kept."""
    subtasks: tuple[str, ...] = ()
    """Subtasks that take rows, in order; without them all, in the order of their names."""

    @model_validator(mode="after")
    def _one_size(self) -> "RoundRobinRule":
        if (self.fraction is None) == (self.count is None):
            raise ValueError("needs either fraction or count")
        return self

    def over(self, subtasks: Sequence[str]) -> "RoundRobinRule":
        """Return the rule for a run whose target has these subtasks. Raises `ValueError` for one that is not there."""
        if not subtasks:
            known = ", ".join(name for name, score in SCORES.items() if score.parts is not None)
            raise ValueError(f"round_robin takes turns by subtasks, which these scores have: {known}")
        if unknown := sorted(set(self.subtasks) - set(subtasks)):
            raise ValueError(
                f"subtasks: {unknown[0]} is none of the target's, which has {', '.join(subtasks)}"
            )
        return self.model_copy(update={"subtasks": self.subtasks or tuple(subtasks)})

    def keep(self, rows: Rows) -> Iterator[Mask]:
        """Keep what the subtasks take; of equal scores the row of the better rank goes first."""
        columns = [OF_SUBTASK + name for name in self.subtasks]
        total = sum(len(table) for table in rows("rank"))
        wanted = min(total, self.count) if self.count is not None else share_of(self.fraction or 0, total)
        taken = taken_in_turn([_best(rows, column, wanted) for column in columns], wanted)
        before = 0
        for table in rows("rank"):
            kept = np.zeros(len(table), dtype=bool)
            inside = taken[(taken >= before) & (taken < before + len(table))]
            kept[inside - before] = True
            before += len(table)
            yield kept


def _best(rows: Rows, column: str, wanted: int) -> NDArray[np.int64]:
    """Return the places of a subtask's best rows, as many as are wanted of all, the best first."""
    places, scores, before = np.zeros(0, dtype=np.int64), np.zeros(0), 0
    for table in rows(column):
        places = np.concatenate([places, before + np.arange(len(table))])
        scores = np.concatenate([scores, table[column].to_numpy()])
        best = np.argsort(-scores, kind="stable")[:wanted]
        places, scores, before = places[best], scores[best], before + len(table)
    return places


def taken_in_turn(queues: Sequence[NDArray[np.int64]], wanted: int) -> NDArray[np.int64]:
    """Return which places are taken when each queue in turn takes the first of its own that is left, sorted."""
    taken: set[int] = set()
    waiting = [iter(queue.tolist()) for queue in queues]
    while len(taken) < wanted:
        for queue in waiting:
            place = next((one for one in queue if one not in taken), None)
            if place is not None and len(taken) < wanted:
                taken.add(place)
    return np.array(sorted(taken), dtype=np.int64)
