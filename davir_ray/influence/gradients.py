"""The gradient of each row's loss over an adapter's parameters, of a whole batch in one forward and one backward pass.

A row's loss is a weighted sum of the losses of its counted tokens. No gradient is added up over the batch: each layer
hands out those of the rows as the backward pass reaches it, and whoever takes them keeps what he needs.

B rows, T tokens of the longest, S counted tokens of all.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from davir_ray.influence.adapted import AdaptedModel, Visit
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.hf.model import depends_on_longest
from davir_ray.logprobs.hf.token_head import WHOLE_CHUNK_BYTES

BATCH_TOKENS = {"cpu": 1024, "cuda": 8192}
"""Tokens of a batch, padding included; a longer row is a batch by itself."""
KEPT_TOKENS = {"cpu": 2048, "cuda": 4096}
"""Above so many tokens a batch keeps only what goes into each layer."""


def batches(sequences: Sequence[TokenSequence], tokens: int) -> Iterator[list[int]]:
    """Deal sequences into batches of like length, longest first; yield their positions."""
    lengths = np.array([counted_length(one) for one in sequences])
    batch: list[int] = []
    for index in np.argsort(-lengths, kind="stable").tolist():
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def batch_tokens(model: AdaptedModel) -> int:
    """Return how many tokens a batch may have: 1, so that each row goes alone, where a longer one would change it."""
    return 1 if depends_on_longest(model.inner) else BATCH_TOKENS[model.device.type]


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
    width = max(map(counted_length, sequences))
    kept = len(sequences) * width <= KEPT_TOKENS[model.device.type]
    with model.telling(visit, len(sequences), checkpointed=not kept), torch.enable_grad():
        # Tokens see only those before them, so what pads a row on its right changes nothing in it.
        hidden = model.inner.base_model(input_ids=_padded(model, sequences, width), use_cache=False)[0]
        hidden.backward(_loss_gradient(model, hidden.detach(), sequences, weights))


def _padded(model: AdaptedModel, sequences: Sequence[TokenSequence], width: int) -> Tensor:
    ids = np.zeros((len(sequences), width), dtype=np.int64)
    for row, one in zip(ids, sequences, strict=True):
        row[: counted_length(one)] = one.ids[: counted_length(one)]
    return torch.from_numpy(ids).to(model.device)


def _loss_gradient(
    model: AdaptedModel, hidden: Tensor, sequences: Sequence[TokenSequence], weights: Sequence[float]
) -> Tensor:
    """Return the gradient of the sum of all rows' losses over the last hidden states [B, T, hidden].

    The head runs on the counted tokens alone, some at a time, and what it makes is forgotten.
    """
    row = np.concatenate([np.full(int(one.scored.sum()), i) for i, one in enumerate(sequences)])
    column = np.concatenate([np.flatnonzero(one.scored) - 1 for one in sequences])
    targets = np.concatenate([one.ids[one.scored] for one in sequences]).astype(np.int64)
    weight = torch.tensor(np.asarray(weights)[row], dtype=torch.float64)
    gradient = torch.zeros_like(hidden)
    vocabulary = int(model.inner.get_output_embeddings().weight.shape[0])  # type: ignore[union-attr, index]
    size = max(1, WHOLE_CHUNK_BYTES[model.device.type] // (4 * vocabulary))
    for part in (slice(at, at + size) for at in range(0, len(row), size)):
        states = hidden[row[part], column[part]].requires_grad_()
        logits = model.head.logits(states)
        losses = cross_entropy(logits, torch.from_numpy(targets[part]).to(model.device), reduction="none")
        (losses * weight[part].to(losses)).sum().backward()
        assert states.grad is not None
        gradient[row[part], column[part]] = states.grad
    return gradient
