"""The loads of gpu_throughput.py: how many sequences, how long, how much of them scored, and the ids that are drawn."""

from dataclasses import dataclass

import numpy as np

from davir_ray.logprobs.engine import TokenSequence


@dataclass(frozen=True)
class Load:
    """Sequences whose lengths are `length` on average.

    spread: the standard deviation of the logarithm of a length; 0 for equal ones. scored: what part is, at the end.
    shared: tokens with which all begin.
    """

    name: str
    count: int
    length: int
    scored: float
    spread: float = 0.0
    shared: int = 0

    def sequences(self, vocabulary: int, longest: int) -> list[TokenSequence]:
        """Draw the sequences, the same ones each time."""
        random = np.random.default_rng(0)
        drawn = random.lognormal(np.log(self.length) - self.spread**2 / 2, self.spread, self.count)
        beginning = random.integers(0, vocabulary, self.shared)
        made = []
        for length in np.clip(drawn.round(), 4 + self.shared, longest).astype(int).tolist():
            own = random.integers(0, vocabulary, length - self.shared)
            scored = np.arange(length) >= length - max(1, int(self.scored * (length - self.shared)))
            made.append(TokenSequence(np.concatenate([beginning, own]).astype(np.int32), scored))
        return made


LOADS = (
    Load("short", 4096, 100, 0.55),
    Load("long", 256, 1024, 0.5),
    Load("alpaca", 4096, 105, 0.55, spread=0.7),
    Load("alpaca, shared", 4096, 140, 0.55, spread=0.5, shared=40),
    Load("chat", 512, 900, 0.5, spread=0.6),
)
LONGEST = 4095
TINY_LOADS = (Load("short", 16, 24, 0.5), Load("chat, shared", 16, 100, 0.5, spread=0.6, shared=24))
TINY_LONGEST = 255
