"""The gradient of each row's loss over an adapter's parameters, of a whole batch in one forward and one backward pass.

A row's loss is a weighted sum of the losses of its counted tokens. No gradient is added up over the batch: each layer
hands out those of the rows as the backward pass reaches it, and whoever takes them keeps what he needs.

Rows lie one after another without padding where the model's attention is known to take them so (packed_attention.py),
else side by side, padded to the longest: B rows, N tokens with what pads them, S counted tokens of all.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from davir_ray.influence.adapted import AdaptedModel, Visit
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.hf import packed_attention
from davir_ray.logprobs.hf.batching import Block
from davir_ray.logprobs.hf.model import depends_on_longest, set_attention
from davir_ray.logprobs.hf.packed_attention import Packing
from davir_ray.logprobs.hf.token_head import WHOLE_CHUNK_BYTES

BATCH_TOKENS = {"cpu": 1024, "cuda": 8192}
"""Tokens of a batch, padding included; a longer row is a batch by itself."""
GRADIENT_BYTES = {"cpu": 2**27, "cuda": 2**30}
"""Gradients of the rows of a batch on one parameter; steps on them take a few times as much."""
KEPT_TOKENS = {"cpu": 2048, "cuda": 4096}
"""Above so many tokens a batch keeps only what goes into each layer."""


def batches(
    model: AdaptedModel, sequences: Sequence[TokenSequence], together: int = 1
) -> Iterator[list[int]]:
    """Deal sequences into batches, longest first; yield their positions. together: how many go as one.

    Raises `ValueError` for a sequence that the model does not take.
    """
    model.takes.check(sequences)
    room, most = together * batch_tokens(model), together * most_rows(model)
    lengths = np.array([counted_length(one) for one in sequences])
    batch: list[int] = []
    for index in np.argsort(-lengths, kind="stable").tolist():
        taken = _tokens_of(model, lengths[[*batch, index]])
        if batch and (taken > room or len(batch) == most):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _tokens_of(model: AdaptedModel, lengths: NDArray[np.int64]) -> int:
    """Return how many tokens a batch of rows of these lengths has, padding included."""
    return int(lengths.sum() if lengths[0] <= model.packed_limit else len(lengths) * lengths[0])


def batch_tokens(model: AdaptedModel) -> int:
    """Return how many tokens a batch may have: 1, so that each row goes alone, where a longer one would change it."""
    return 1 if depends_on_longest(model.inner) else BATCH_TOKENS[model.device.type]


def most_rows(model: AdaptedModel) -> int:
    """Return how many rows a batch may have, for the gradients of all on one parameter are held at once."""
    largest = max(one.linear.weight.nbytes for one in model.watched)
    return max(1, GRADIENT_BYTES[model.device.type] // largest)


def counted_length(sequence: TokenSequence) -> int:
    """Return how many tokens of a sequence have a part in its loss: what follows the last that counts has none."""
    return int(np.flatnonzero(sequence.scored)[-1])


def mean_loss_weights(sequences: Sequence[TokenSequence]) -> list[float]:
    """Return the weights with which a row's loss is the mean over its counted tokens."""
    return [1 / int(one.scored.sum()) for one in sequences]


def visit_gradients(
    model: AdaptedModel, sequences: Sequence[TokenSequence], weights: Sequence[float], visit: Visit
) -> None:
    """Run one batch; `visit` is told each parameter's gradients, a row a sequence, from the last layer to the first.

    weights: of each token's loss in the loss of its row [B].
    """
    lengths = [counted_length(one) for one in sequences]
    packed = max(lengths) <= model.packed_limit
    blocks = _one_after_another(lengths) if packed else [Block(0, len(lengths), max(lengths), ())]
    kept = sum(one.count * one.length for one in blocks) <= KEPT_TOKENS[model.device.type]
    with model.telling(visit, blocks, checkpointed=not kept), torch.enable_grad():
        hidden = _packed(model, sequences, blocks) if packed else _padded(model, sequences, max(lengths))
        firsts = [one.first + i * one.length for one in blocks for i in range(one.count)]
        hidden.backward(_loss_gradient(model, hidden.detach(), sequences, weights, firsts))


def _one_after_another(lengths: Sequence[int]) -> list[Block]:
    """Put neighbouring rows of one length into one block."""
    blocks: list[Block] = []
    first = 0
    for length, group in groupby(lengths):
        blocks.append(Block(first, len(list(group)), length, ()))
        first += blocks[-1].count * length
    return blocks


def _packed(model: AdaptedModel, sequences: Sequence[TokenSequence], blocks: Sequence[Block]) -> Tensor:
    """Return the last hidden states [N, hidden] of rows that lie one after another."""
    set_attention(model.inner, packed_attention.NAME)
    lengths = [counted_length(one) for one in sequences]
    ids = np.concatenate([one.ids[:length] for one, length in zip(sequences, lengths, strict=True)])
    positions = np.concatenate([np.arange(length) for length in lengths])
    states: Tensor = model.inner.base_model(
        input_ids=torch.from_numpy(ids.astype(np.int64))[None].to(model.device),
        position_ids=torch.from_numpy(positions)[None].to(model.device),
        use_cache=False,
        packing=Packing(blocks),
    )[0]
    return states.flatten(0, 1)


def _padded(model: AdaptedModel, sequences: Sequence[TokenSequence], width: int) -> Tensor:
    """Return the last hidden states [B * T, hidden] of rows that are padded to a width T.

    Tokens see only those before them, so what pads a row on its right changes nothing in it.
    """
    set_attention(model.inner, model.own_attention)
    ids = np.zeros((len(sequences), width), dtype=np.int64)
    for row, one in zip(ids, sequences, strict=True):
        row[: counted_length(one)] = one.ids[: counted_length(one)]
    padded = torch.from_numpy(ids).to(model.device)
    states: Tensor = model.inner.base_model(input_ids=padded, use_cache=False)[0]
    return states.flatten(0, 1)


def _loss_gradient(
    model: AdaptedModel,
    hidden: Tensor,
    sequences: Sequence[TokenSequence],
    weights: Sequence[float],
    firsts: Sequence[int],
) -> Tensor:
    """Return the gradient of the sum of all rows' losses over the last hidden states [N, hidden].

    firsts: where each row begins. The head runs on the counted tokens alone, some at a time, and what it makes is
    forgotten.
    """
    before = np.concatenate(
        [first + np.flatnonzero(one.scored) - 1 for first, one in zip(firsts, sequences, strict=True)]
    )
    targets = np.concatenate([one.ids[one.scored] for one in sequences]).astype(np.int64)
    weight = torch.tensor(
        np.repeat(weights, [int(one.scored.sum()) for one in sequences]), dtype=torch.float64
    )
    gradient = torch.zeros_like(hidden)
    vocabulary = int(model.inner.get_output_embeddings().weight.shape[0])  # type: ignore[union-attr, index]
    size = max(1, WHOLE_CHUNK_BYTES[model.device.type] // (4 * vocabulary))
    for part in (slice(at, at + size) for at in range(0, len(before), size)):
        states = hidden[before[part]].requires_grad_()
        logits = model.head.logits(states)
        losses = cross_entropy(logits, torch.from_numpy(targets[part]).to(model.device), reduction="none")
        (losses * weight[part].to(losses)).sum().backward()
        assert states.grad is not None
        gradient[before[part]] = states.grad
    return gradient
