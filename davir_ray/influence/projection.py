"""The published way to keep gradients: projected to D numbers by a dense matrix of random signs (Rademacher).

Dot products of projections are those of the gradients to about 1/sqrt(D) of the product of their lengths (Johnson and
Lindenstrauss). LESS and ROSE rank by cosines of projections with D = 8192; so do `less_projected` and
`rose_projected`. Where the target is known beforehand the alignment is exact without (see directions.py).

The signs of a coordinate are made from the seed, the parameter's name and the coordinate's index alone, by a generator
that counts (Philox), so they are the same on every machine and in blocks of any size, and a parameter's part does not
depend on the others. The signs of a block exist while all rows of a batch are multiplied by them, and no longer.

N rows, P_i coordinates of parameter i.
"""

from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

DIMENSIONS, SEED = 8192, 0
BLOCK = 128
"""Coordinates whose signs exist at once: 4 MiB of them at 8192 dimensions, which caches of processors hold."""
WORDS, BITS = 4, 256
"""Words of 64 bits, and their bits, that the generator makes at each count."""
SIGNS_OF_BYTE = torch.from_numpy(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)) * 2.0 - 1.0
"""The eight signs that each byte stands for: float32 [256, 8]."""


class Projection:
    """The projections of N rows, added up parameter by parameter, in whatever order their parts come."""

    def __init__(
        self, rows: int, device: torch.device, dimensions: int = DIMENSIONS, seed: int = SEED
    ) -> None:
        self.seed = seed
        self.sums = torch.zeros(rows, dimensions, dtype=torch.float64, device=device)

    def add(self, name: str, rows: Tensor, block: int = BLOCK) -> None:
        """Add one parameter's part of every row [N, P_i]."""
        for start in range(0, rows.shape[1], block):
            some = rows[:, start : start + block].float()
            self.sums += some @ signs(name, start, some.shape[1], self.sums.shape[1], self.seed, rows.device)

    def values(self) -> Tensor:
        """Return the projections float64 [N, D] of what was added."""
        return self.sums.div(self.sums.shape[1] ** 0.5)


def signs(
    name: str, start: int, count: int, dimensions: int, seed: int, device: torch.device | None = None
) -> Tensor:
    """Return the signs, 1 or -1, of a parameter's coordinates from `start` on: float32 [count, D]."""
    counts = -(-dimensions // BITS)  # of the generator for one coordinate
    generator = np.random.Philox(key=_key(name, seed), counter=start * counts)
    words = np.asarray(generator.random_raw(count * counts * WORDS), dtype="<u8")
    packed = torch.from_numpy(words.view(np.uint8)).to(device)
    unpacked = SIGNS_OF_BYTE.to(device).index_select(0, packed.int())
    return unpacked.view(count, -1)[:, :dimensions]


def _key(name: str, seed: int) -> int:
    """Return the 128 bits that the generator is keyed by."""
    return int.from_bytes(blake2b(f"{seed} {name}".encode(), digest_size=16).digest(), "little")
