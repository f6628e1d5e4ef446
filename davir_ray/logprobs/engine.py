"""The protocol between the pipeline and whatever computes log-probabilities.

Shapes: T tokens in a sequence, S of them scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from davir_ray.models.resolve import ResolvedModel


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """Token ids with the counted positions marked.

    ids: int32 [T]. scored: bool [T]; `scored[t]` asks for log p(ids[t] | ids[:t]), so `scored[0]` is False.
    At least one position is scored.
    """

    ids: NDArray[np.int32]
    scored: NDArray[np.bool_]


TokenValue = Literal["rank", "entropy"]
"""What an engine may say of a token beside its log-probability."""
Wanted = frozenset[TokenValue]
MOST_RANK = 100
"""Ranks are clipped here, as the rank-surprisal ratio clips them (arXiv 2601.14249), and fit into a byte."""


@dataclass(frozen=True, slots=True)
class TokenValues:
    """What the head says of the S scored tokens of one sequence; None is what was not wanted.

    logprobs: float32 [S], natural logarithms. rank: uint8 [S], 1 + the number of tokens with a larger logit, at most
    `MOST_RANK`. entropy: float32 [S], nats, of the distribution over the whole vocabulary that the token is drawn from.
    """

    logprobs: NDArray[np.float32]
    rank: NDArray[np.uint8] | None
    entropy: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Represented:
    """A sequence as a vector, and what its S scored tokens cost.

    logprobs: float32 [S], natural logarithms. vector: float32 [hidden], the mean over all T positions, with the weights
    1 to T, of the hidden states that the head reads.
    """

    logprobs: NDArray[np.float32]
    vector: NDArray[np.float32]


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


class TokenEngine(Engine, Protocol):
    """An engine that can say more of a token than its log-probability."""

    def token_values(self, sequences: Sequence[TokenSequence], wanted: Wanted) -> list[TokenValues]:
        """Return what is wanted of the scored tokens, one `TokenValues` a sequence, in order.

        Takes and raises what `logprobs` does, and `EngineError` where it cannot give a wanted value at all.
        """
        ...


class SwitchingEngine(Engine, Protocol):
    """An engine that can go over to another model without being started again."""

    def switch(self, model: ResolvedModel) -> None:
        """Give the numbers of another model from now on: those that an engine made for it gives.

        Raises `ModelError` for one that cannot be loaded, and `EngineDied` when the engine can serve neither any more.
        """
        ...
