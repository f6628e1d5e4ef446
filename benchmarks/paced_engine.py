"""An engine without a model that takes its time: the hash engine, at the speed of a small model on a GPU."""

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.hash_engine import HashEngine

TOKENS_PER_SECOND = 200_000


class PacedEngine(HashEngine):
    """Sleeps as long as such a model would compute."""

    def __init__(self, model_path: str, **settings: object) -> None:
        super().__init__(model_path)

    def logprobs(self, sequences: Sequence[TokenSequence]) -> list[NDArray[np.float32]]:
        """Return what the hash engine returns."""
        time.sleep(sum(len(one.ids) for one in sequences) / TOKENS_PER_SECOND)
        return super().logprobs(sequences)
