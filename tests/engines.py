"""Engines that misbehave on purpose, used by import path: the hash engine, until it meets what it cannot stand."""

import os
import time
from pathlib import Path
from threading import Event

from davir_ray.logprobs.hash_engine import HashEngine
from davir_ray.schema import Need, View
from davir_ray.scores.score import Score

POISON = [ord(letter) for letter in "KILL"]


def is_poisoned(sequence) -> bool:
    """Tell whether a sequence of the byte-level test tokenizer spells the word that kills."""
    ids = sequence.ids.tolist()
    return any(ids[start : start + 4] == WORD for start in range(len(ids)))


# The test tokenizer numbers the printable bytes from "!" on.
WORD = [number - ord("!") for number in POISON]


class PathHash(HashEngine):
    """The hash engine by import path: its numbers follow the path of the model, and of its adapter."""

    def __init__(self, model_path, *, adapter_path, dtype, device, max_length) -> None:
        self.go_over(model_path, adapter_path)

    def go_over(self, model_path, adapter_path) -> None:
        """Give the numbers of a model from now on."""
        super().__init__(f"{model_path}+{adapter_path}" if adapter_path else model_path)
        self.model_path = model_path

    def switch(self, model) -> None:
        """Go over to another model in the same process, as the engines of the project do."""
        self.go_over(model.model_path, model.adapter_path)

    def meet(self, sequences) -> None:
        """Do what the engine does before it measures sequences."""

    def logprobs(self, sequences):
        self.meet(sequences)
        return super().logprobs(sequences)

    def token_values(self, sequences, wanted):
        self.meet(sequences)
        return super().token_values(sequences, wanted)


class LethalEngine(PathHash):
    """Ends its process, as a segmentation fault would, when a batch holds the word and the model is the base."""

    def meet(self, sequences) -> None:
        if self.model_path.endswith("base") and any(is_poisoned(sequence) for sequence in sequences):
            self.fall()

    def fall(self) -> None:
        """End the process."""
        os._exit(139)


class FailingEngine(LethalEngine):
    """Raises where the lethal engine ends its process."""

    def fall(self) -> None:
        """Raise."""
        raise RuntimeError("cannot stand this batch")


class MortalEngine(PathHash):
    """Ends its process the first time that it is called for a model: what a lost node looks like."""

    def meet(self, sequences) -> None:
        grave = Path(self.model_path) / f"{type(self).__name__}-fell"
        if not grave.exists():
            grave.touch()
            self.fall()

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


class SlowEngine(PathHash):
    """Takes its time, so that a test can stop a run in the middle."""

    def meet(self, sequences) -> None:
        time.sleep(0.25)


class UselessEngine(PathHash):
    """Raises at every call."""

    def meet(self, sequences) -> None:
        raise RuntimeError("no good at all")


class DiesWhileLoading(PathHash):
    """Ends its process before it is there."""

    def __init__(self, model_path, **settings) -> None:
        os._exit(137)


class FailsToLoad(PathHash):
    """Raises what nobody expects before it is there."""

    def __init__(self, model_path, **settings) -> None:
        raise LookupError("no such weights\nand more lines")


def divided(measured, config):
    """Raise, as a score with a mistake in it does."""
    return 1 // 0


MISTAKEN = Score("mistaken", "1 / 0", (Need("loss", "base", View.RESPONSE),), "none", divided)
