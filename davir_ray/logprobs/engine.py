"""The protocol between the pipeline and whatever computes log-probabilities.

Shapes: T tokens in a sequence, S of them scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """Token ids with the counted positions marked.

    ids: int32 [T]. scored: bool [T]; `scored[t]` asks for log p(ids[t] | ids[:t]), so `scored[0]` is False.
    At least one position is scored.
    """

    ids: NDArray[np.int32]
    scored: NDArray[np.bool_]


class Engine(Protocol):
    """One loaded model. Built in the process that uses it; holds an accelerator until `close`."""

    def logprobs(self, sequences: Sequence[TokenSequence]) -> list[NDArray[np.float32]]:
        """Natural-log probabilities of the scored tokens: one float32 [S] array a sequence, in order.

        Any number of sequences of any length up to the engine's `max_length`, batched as the engine likes.
        Raises `EngineDied` when the engine cannot serve further calls; any other exception is about the
        sequences given.
        """
        ...

    def close(self) -> None:
        """Free the model and its accelerator."""
        ...


TokenValue = Literal["rank", "entropy"]


@dataclass(frozen=True, slots=True)
class TokenValues:
    """What the head says of the S scored tokens of one sequence."""

    logprobs: NDArray[np.float32]
    rank: NDArray[np.uint8] | None
    entropy: NDArray[np.float32] | None


class TokenEngine(Engine, Protocol):
    """An engine that gives more than log-probabilities."""

    def token_values(
        self, sequences: Sequence[TokenSequence], wanted: frozenset[TokenValue]
    ) -> list[TokenValues]: ...
