"""Attention for batches without padding, under the name `davir_packed` in transformers' registry.

A model whose attention is set to it takes all its tokens as one row, with their positions, and the keyword
`packing`, which says what sees what. Shapes: N tokens, H heads, G heads of keys and values, D a head,
P header tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from davir_ray.logprobs.hf import varlen_attention
from davir_ray.logprobs.hf.batching import Block

NAME = "davir_packed"
KeysValues = tuple[Tensor, Tensor]
"""Keys and values [P, G, D] of one layer."""


@dataclass
class Packing:
    """What the tokens of one forward pass see.

    header: keys and values of the tokens before all others, by layer. recorded: filled, where it is a
    dictionary, with this pass's own keys and values.
    """

    blocks: Sequence[Block]
    header: dict[int, KeysValues] | None = None
    recorded: dict[int, KeysValues] | None = None
    masks: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    spans: varlen_attention.Spans | None = None
    at_once: varlen_attention.Attention | None = None

    def mask(self, length: int, past: int, like: Tensor) -> Tensor:
        """Let each of `length` tokens see all of `past` and, among themselves, those not after it."""
        if (length, past) not in self.masks:
            empty = torch.full((length, past + length), float("-inf"), dtype=like.dtype, device=like.device)
            self.masks[length, past] = empty.triu(past + 1)
        return self.masks[length, past]

    def attention(self, header: KeysValues | None, device: torch.device) -> varlen_attention.Attention | None:
        """Return what attends to all blocks in one call, the same for every layer; None where that copies too much."""
        if self.spans is None:
            self.spans = spans = varlen_attention.Spans(self.blocks, len(header[0]) if header else 0)
            if spans.fits:
                self.at_once = varlen_attention.Attention(spans.queries, spans.keys, spans.index, device)
        return self.at_once


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """Attend to all blocks, in one call where a kernel takes them so (varlen_attention.py), else one by one.

    query: [1, H, N, D]; key and value: [1, G, N, D]; returns [1, N, H, D].
    A sliding window is ignored: the engine sends no sequence here that is longer than it.
    """
    assert softcap is None, "no model with capped attention is packed"
    assert s_aux is None, "no model with attention sinks is packed"
    tokens = [states[0].transpose(0, 1).contiguous() for states in (query, key, value)]
    layer: int = module.layer_idx  # type: ignore[assignment]
    if packing.recorded is not None:
        packing.recorded[layer] = (tokens[1], tokens[2])
    header = packing.header[layer] if packing.header else None
    if varlen_attention.takes(tokens[0], tokens[1]) and (attend := packing.attention(header, query.device)):
        return attend(tokens[0], tokens[1], tokens[2], header, scaling).unsqueeze(0), None
    # Splitting is one step of the backward pass; a slice a block would make as many gradients of the whole batch.
    sizes = [block.count * block.length for block in packing.blocks]
    own = zip(*(states.split(sizes) for states in tokens), strict=True)
    pieces = [
        _attend(block, states, tokens, header, packing, scaling)
        for block, states in zip(packing.blocks, own, strict=True)
    ]
    return torch.cat(pieces).unsqueeze(0), None


def _attend(
    block: Block,
    own: Sequence[Tensor],
    tokens: Sequence[Tensor],
    header: KeysValues | None,
    packing: Packing,
    scaling: float | None,
) -> Tensor:
    """Attend within one block; returns [count * length, H, D]. own: the block's part of the batch's tokens."""
    query, *seen = (states.view(block.count, block.length, *states.shape[1:]) for states in own)
    keys, values = (_with_past(block, seen[i], tokens[i + 1], header[i] if header else None) for i in (0, 1))
    past = keys.shape[1] - block.length
    attended = scaled_dot_product_attention(
        query.transpose(1, 2),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        attn_mask=packing.mask(block.length, past, query) if past else None,
        is_causal=not past,
        scale=scaling,
        enable_gqa=keys.shape[2] != query.shape[2],
    )
    return attended.transpose(1, 2).reshape(-1, *tokens[0].shape[1:])


def _with_past(block: Block, own: Tensor, tokens: Tensor, header: Tensor | None) -> Tensor:
    """Put header and ancestors before a block's own tokens: [count, past + length, G, D]."""
    past = [tokens[low:high] for low, high in block.past]
    if header is not None:
        past.insert(0, header)
    repeated = [piece.expand(block.count, *piece.shape) for piece in past]
    return torch.cat([*repeated, own], dim=1) if past else own


AttentionInterface.register(NAME, packed_attention)
