"""The published way to keep gradients: projected to D numbers by a dense matrix of random signs (Rademacher).

Dot products of projections are those of the gradients to about 1/sqrt(D) of the product of their lengths (Johnson and
Lindenstrauss). LESS and ROSE rank by cosines of projections with D = 8192. Nothing here ranks by them: the alignment
with a target whose directions are known is exact without (see directions.py). Projections are for gradients that are
kept, and for comparison with what was published.

The signs of a coordinate are made from the seed, the parameter's name and the coordinate's index alone, by a generator
that counts (Philox), so they are the same on every machine and in blocks of any size, and a parameter's part does not
depend on the others.

N rows, P_i coordinates of parameter i.
"""

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

DIMENSIONS = 8192
BLOCK = 512
"""Coordinates whose signs exist at once: 16 MiB of them at 8192 dimensions."""
WORDS, BITS = 4, 256
"""Words of 64 bits, and their bits, that the generator makes at each count."""


def project(
    gradients: Mapping[str, Tensor], dimensions: int = DIMENSIONS, *, seed: int = 0, block: int = BLOCK
) -> Tensor:
    """Return the projections float32 [N, D] of gradients by parameter [N, P_i]."""
    total: Tensor | None = None
    for name, rows in gradients.items():
        part = _project_parameter(name, rows.float(), dimensions, seed, block)
        total = part if total is None else total.add_(part)
    if total is None:
        raise ValueError("no gradients to project")
    return total.div_(dimensions**0.5).float()


def _project_parameter(name: str, rows: Tensor, dimensions: int, seed: int, block: int) -> Tensor:
    """Return the sums float64 [N, D] of a parameter's coordinates, each with its signs."""
    total = torch.zeros(len(rows), dimensions, dtype=torch.float64, device=rows.device)
    for start in range(0, rows.shape[1], block):
        some = rows[:, start : start + block]
        total += some @ signs(name, start, some.shape[1], dimensions, seed).to(rows.device)
    return total


def signs(name: str, start: int, count: int, dimensions: int, seed: int) -> Tensor:
    """Return the signs, 1 or -1, of a parameter's coordinates from `start` on: float32 [count, D]."""
    counts = -(-dimensions // BITS)  # of the generator for one coordinate
    generator = np.random.Philox(key=_key(name, seed), counter=start * counts)
    words = np.asarray(generator.random_raw(count * counts * WORDS), dtype="<u8")
    bits = np.unpackbits(words.view(np.uint8).reshape(count, -1), axis=1, count=dimensions)
    return torch.from_numpy(bits).float().mul_(2).sub_(1)


def _key(name: str, seed: int) -> int:
    """Return the 128 bits that the generator is keyed by."""
    return int.from_bytes(blake2b(f"{seed} {name}".encode(), digest_size=16).digest(), "little")
