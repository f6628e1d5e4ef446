"""An engine without a model: the numbers mean nothing. For trying a recipe, and for tests."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from davir_ray.ids import GOLDEN, mixed
from davir_ray.logprobs.engine import MOST_RANK, TokenSequence, TokenValues, Wanted
from davir_ray.models.resolve import ResolvedModel


class HashEngine:
    """Give each scored token a fixed log-probability: a hash of the model's name and `ids[: t + 1]`.

    Like a causal model, and unlike a random one: equal prefixes give equal values, whatever else is in the
    call and whatever follows. The values are the logarithms of uniform numbers, so their mean is -1.
    """

    def __init__(self, model_name: str) -> None:
        self._name(model_name)

    def _name(self, model_name: str) -> None:
        digest = blake2b(model_name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self._seed = np.frombuffer(digest, dtype="<u8")

    def logprobs(self, sequences: Sequence[TokenSequence]) -> list[NDArray[np.float32]]:
        """Return log-probabilities below zero, finite: one float32 [S] array a sequence, in order."""
        return [_log_uniform(self._hash(sequence)) for sequence in sequences]

    def token_values(self, sequences: Sequence[TokenSequence], wanted: Wanted) -> list[TokenValues]:
        """Return what is wanted: ranks uniform in 1 to `MOST_RANK`, entropies with a mean of 1."""
        return [_values(self._hash(sequence), wanted) for sequence in sequences]

    def switch(self, model: ResolvedModel) -> None:
        """Give the numbers of another model from now on."""
        self._name(model.identity)

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def _hash(self, sequence: TokenSequence) -> NDArray[np.uint64]:
        """Return a word [S] for each scored token and the tokens before it."""
        position = np.arange(1, len(sequence.ids) + 1, dtype=np.uint64) * GOLDEN
        tokens = mixed(sequence.ids.astype(np.uint64) ^ position)
        return mixed(np.cumsum(tokens, dtype=np.uint64)[sequence.scored] ^ self._seed)


def _values(words: NDArray[np.uint64], wanted: Wanted) -> TokenValues:
    again = mixed(words ^ GOLDEN)  # else a likely token would always have a high rank and a low entropy
    return TokenValues(
        logprobs=_log_uniform(words),
        rank=(again % np.uint64(MOST_RANK) + np.uint64(1)).astype(np.uint8) if "rank" in wanted else None,
        entropy=-_log_uniform(mixed(again)) if "entropy" in wanted else None,
    )


def _log_uniform(words: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Turn words into logarithms of uniform numbers."""
    # The half keeps the uniform number away from 0 and 1, and so its logarithm finite and below 0.
    return np.log(((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53).astype(np.float32)
