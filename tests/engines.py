"""Engines that misbehave on purpose, used by import path: the hash engine, until it meets what it cannot stand."""

import os
import time
from pathlib import Path
from threading import Event

from davir_ray.logprobs.hash_engine import HashEngine
from davir_ray.schema import View
from davir_ray.scores.score import Score

POISON = [ord(letter) for letter in "KILL"]


def is_poisoned(sequence) -> bool:
    """Tell whether a sequence of the byte-level test tokenizer spells the word that kills."""
    ids = sequence.ids.tolist()
    return any(ids[start : start + 4] == WORD for start in range(len(ids)))


# The test tokenizer numbers the printable bytes from "!" on.
WORD = [number - ord("!") for number in POISON]


class LethalEngine(HashEngine):
    """Ends its process, as a segmentation fault would, when a batch holds the word and the model is the base."""

    def __init__(self, model_name: str) -> None:
        super().__init__(model_name)
        self.cannot_stand = model_name.endswith("base")

    def logprobs(self, sequences):
        if self.cannot_stand and any(is_poisoned(sequence) for sequence in sequences):
            self.fall()
        return super().logprobs(sequences)

    def fall(self) -> None:
        """End the process."""
        os._exit(139)


class FailingEngine(LethalEngine):
    """Raises where the lethal engine ends its process."""

    def fall(self) -> None:
        """Raise."""
        raise RuntimeError("cannot stand this batch")


class MortalEngine(HashEngine):
    """Ends its process the first time that it is called for a model: what a lost node looks like."""

    def __init__(self, model_name: str) -> None:
        super().__init__(model_name)
        self.grave = Path(model_name) / f"{type(self).__name__}-fell"

    def logprobs(self, sequences):
        if not self.grave.exists():
            self.grave.touch()
            self.fall()
        return super().logprobs(sequences)

    def fall(self) -> None:
        """End the process."""
        os._exit(137)


class StallingEngine(LethalEngine):
    """Never answers where the lethal engine ends its process."""

    def fall(self) -> None:
        """Wait for ever."""
        Event().wait()


class StuckOnceEngine(MortalEngine):
    """Never answers the first time that it is called for a model."""

    def fall(self) -> None:
        """Wait for ever."""
        Event().wait()


class SlowEngine(HashEngine):
    """Takes its time, so that a test can stop a run in the middle."""

    def logprobs(self, sequences):
        time.sleep(0.25)
        return super().logprobs(sequences)


class UselessEngine(HashEngine):
    """Raises at every call."""

    def logprobs(self, sequences):
        raise RuntimeError("no good at all")


class DiesWhileLoading(HashEngine):
    """Ends its process before it is there."""

    def __init__(self, model_name: str) -> None:
        os._exit(137)


class FailsToLoad(HashEngine):
    """Raises what nobody expects before it is there."""

    def __init__(self, model_name: str) -> None:
        raise LookupError("no such weights\nand more lines")


def divided(measured, config):
    """Raise, as a score with a mistake in it does."""
    return 1 // 0


MISTAKEN = Score("mistaken", "1 / 0", (("base", View.RESPONSE),), "none", divided)
