"""Engines that misbehave on purpose, used by import path: the hash engine, until it meets what it cannot stand."""

import os
from pathlib import Path

from davir_ray.logprobs.hash_engine import HashEngine

POISON = [ord(letter) for letter in "KILL"]


def is_poisoned(sequence) -> bool:
    """Tell whether a sequence of the byte-level test tokenizer spells the word that kills."""
    ids = sequence.ids.tolist()
    return any(ids[start : start + 4] == WORD for start in range(len(ids)))


# The test tokenizer numbers the printable bytes from "!" on.
WORD = [number - ord("!") for number in POISON]


class LethalEngine(HashEngine):
    """Ends its process, as a segmentation fault would, when a batch holds the word."""

    def logprobs(self, sequences):
        if any(is_poisoned(sequence) for sequence in sequences):
            os._exit(139)
        return super().logprobs(sequences)


class FailingEngine(HashEngine):
    """Raises when a batch holds the word."""

    def logprobs(self, sequences):
        if any(is_poisoned(sequence) for sequence in sequences):
            raise RuntimeError("cannot stand this batch")
        return super().logprobs(sequences)


class MortalEngine(HashEngine):
    """Ends its process at the third call of its life, until it has done so twice: what a lost node looks like."""

    def __init__(self, model_name: str) -> None:
        super().__init__(model_name)
        self.calls = 0

    def logprobs(self, sequences):
        self.calls += 1
        deaths = Path(os.environ["DAVIR_TEST_DEATHS"])
        if self.calls == 3 and len(list(deaths.iterdir())) < 2:
            (deaths / str(os.getpid())).touch()
            os._exit(137)
        return super().logprobs(sequences)
