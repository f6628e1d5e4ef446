"""Attention of a whole batch in one call, whatever the lengths of its segments: torch's FlashAttention on a GPU.

It takes bfloat16 and float16 and no gradients: its backward pass adds up in an order that differs from run to run. What
segments see of a header and of ancestors is copied for each of them; a batch that would copy much goes block by block.
Shapes: N tokens, S segments, K keys, H heads, G heads of keys and values, D a head, P header tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

from davir_ray.foreign_text import shortened
from davir_ray.logprobs.hf.batching import Block
from davir_ray.progress import warn

DTYPES = (torch.bfloat16, torch.float16)
MOST_WIDTH = 256
WIDTH_UNIT = 8
ROUNDING = 0.05
"""How far a value of size 1 may be off in bfloat16 between two ways to sum it up."""
NEW, SEEN = (3, 1, 17, 40), (3, 5, 17, 64)
"""What the kernel is tried on: the tokens of each segment, and how many the last of them sees."""
CAUSAL = (-1, 0)
MOST_SEEN = 4
"""Keys a token, on average, that a batch may have copied for its segments."""
Ends = NDArray[np.int32]
"""Where segments begin and end among tokens: int32 [S + 1]."""


@dataclass(frozen=True)
class Spans:
    """What each segment sees: the header, its ancestors, and itself up to the token in question.

    blocks: in the order of the batch's tokens. header: P.
    """

    blocks: Sequence[Block]
    header: int

    @cached_property
    def queries(self) -> Ends:
        """Where the segments begin and end among the tokens, int32 [S + 1]."""
        return _ends(block.length for block in self.blocks for _ in range(block.count))

    @cached_property
    def keys(self) -> Ends:
        """Where what each segment sees begins and ends in `index`, int32 [S + 1]."""
        lengths = (self._past(block) + block.length for block in self.blocks for _ in range(block.count))
        return _ends(lengths)

    @cached_property
    def index(self) -> NDArray[np.int64] | None:
        """Which of the header's and then the batch's tokens are seen, int64 [K]; None for the batch's as they lie."""
        if not any(map(self._past, self.blocks)):
            return None
        return np.concatenate([part for block in self.blocks for part in self._seen(block)])

    @property
    def fits(self) -> bool:
        """Whether what the segments see may be copied."""
        return int(self.keys[-1]) <= MOST_SEEN * int(self.queries[-1])

    def _past(self, block: Block) -> int:
        return self.header + sum(high - low for low, high in block.past)

    def _seen(self, block: Block) -> Iterator[NDArray[np.int64]]:
        for first in range(block.first, block.first + block.count * block.length, block.length):
            yield np.arange(self.header)
            for low, high in (*block.past, (first, first + block.length)):
                yield np.arange(low, high) + self.header


class Attention:
    """The one call for all layers of a batch."""

    def __init__(
        self, queries: Ends, keys: Ends, index: NDArray[np.int64] | None, device: torch.device
    ) -> None:
        self._ends = _moved(queries, device), _moved(keys, device)
        self._longest = int(np.diff(queries).max()), int(np.diff(keys).max())
        self._index = None if index is None else _moved(index, device)

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        header: tuple[Tensor, Tensor] | None,
        scale: float | None,
    ) -> Tensor:
        """Return what the tokens take up [N, H, D]. query: [N, H, D]; key, value: [N, G, D]; header: [P, G, D] each."""
        if header is not None:
            key, value = torch.cat([header[0], key]), torch.cat([header[1], value])
        if self._index is not None:
            key, value = key[self._index], value[self._index]
        grouped = query.shape[1] != key.shape[1]
        attended = varlen_attn(
            query,
            key,
            value,
            *self._ends,
            *self._longest,
            scale=scale,
            window_size=CAUSAL,
            enable_gqa=grouped,
        )
        assert isinstance(attended, Tensor), "nothing but the output was asked for"
        return attended


def takes(query: Tensor, key: Tensor) -> bool:
    """Tell whether one call can serve these tokens [N, H, D], and gives here what attention is."""
    if torch.is_grad_enabled() or not query.is_cuda or query.dtype not in DTYPES:
        return False
    heads, width = query.shape[1:]
    if width > MOST_WIDTH or width % WIDTH_UNIT:
        return False
    return proven(query.device, query.dtype, heads, key.shape[1], width)


@lru_cache
def proven(device: torch.device, dtype: torch.dtype, heads: int, key_heads: int, width: int) -> bool:
    """Try the kernel on a few random segments; false where it fails, or the last token does not see all of them.

    Raises `torch.OutOfMemoryError`: that says nothing about the kernel.
    """
    random = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(sum(lengths), some, width, generator=random).to(device, dtype)
        for lengths, some in ((NEW, heads), (SEEN, key_heads), (SEEN, key_heads))
    )
    try:
        found = Attention(_ends(NEW), _ends(SEEN), None, device)(query, key, value, None, None)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError, TypeError) as error:
        return _told(f"{type(error).__name__}: {error}")
    expected = torch.cat(list(_one_by_one(query, key, value)))
    off = float((found.float() - expected).abs().max())
    return off <= ROUNDING or _told(f"it is off by {off:.3f}")


def _told(why: str) -> bool:
    """Say that the kernel is not used; return false."""
    reason = shortened(" ".join(why.split()))
    warn(f"attention goes block by block: torch's variable-length kernel cannot be used here ({reason})")
    return False


def _one_by_one(query: Tensor, key: Tensor, value: Tensor) -> Iterator[Tensor]:
    """Yield what the tokens of each of the segments take up, in float32."""
    parts = query.float().split(NEW), key.float().split(SEEN), value.float().split(SEEN)
    for one, keys, values in zip(*parts, strict=True):
        before = len(keys) - len(one)
        mask = torch.ones(len(one), len(keys), dtype=torch.bool, device=one.device).tril(before)
        one, keys, values = (part.transpose(0, 1)[None] for part in (one, keys, values))
        attended = scaled_dot_product_attention(one, keys, values, attn_mask=mask, enable_gqa=True)
        yield attended[0].transpose(0, 1)


def _ends(lengths: Iterator[int] | Sequence[int]) -> Ends:
    return np.cumsum([0, *lengths]).astype(np.int32)


def _moved(array: NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)
