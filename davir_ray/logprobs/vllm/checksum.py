"""Whether a model in memory holds the weights of a folder, whatever engine put them there and in whatever places.

Weights are summed up as the whole numbers that their bits are, modulo 2**64: exact, in any order, and the same whether
matrices are joined, cut, transposed or padded with zeros. vLLM says no more than a line in its log where it leaves
weights as they were when it reads others into their places.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from davir_ray.models.resolve import indexed_files, weight_files

NO_WEIGHTS = (
    *("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached"),
    *(".attn.bias", ".attn.masked_bias"),
)
"""Ends of names in older files that are no weights: what a model computes from its config."""
HEAD = "lm_head.weight"
BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


def checksum(weights: Iterable[Tensor], dtype: torch.dtype) -> int:
    """Sum up the bits of weights as they are in a dtype."""
    return sum(int(weight.to(dtype).view(BITS[dtype]).sum(dtype=torch.int64)) for weight in weights) % 2**64


def checksum_of_files(folder: str, dtype: torch.dtype, device: str, *, tied: bool) -> int:
    """Sum up the weights of a model's folder. tied: whether the head is the embeddings, whatever else a file holds."""
    return checksum(_weights(folder, device, tied), dtype)


def checksum_of_worker(worker: Any, dtype: torch.dtype) -> int:
    """Sum up what a worker of vLLM holds; shared weights count once."""
    return checksum(worker.get_model().parameters(), dtype)


def _weights(folder: str, device: str, tied: bool) -> Iterable[Tensor]:
    for path in _files(Path(folder)):
        with safe_open(path, framework="pt", device=device) as file:
            for name in file.keys():  # noqa: SIM118
                if not name.endswith(NO_WEIGHTS) and not (tied and name == HEAD):
                    yield file.get_tensor(name)


def _files(folder: Path) -> list[Path]:
    """Return the files that a model is read from: those of its index, where it has one."""
    named = indexed_files(folder)
    return [path for path in weight_files(folder) if named is None or path.name in named]
