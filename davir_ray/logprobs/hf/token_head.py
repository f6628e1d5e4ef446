"""The last step of a language model, on the rows that are asked for and a slice of the vocabulary at a time.

The model's own code does it (heads differ: soft caps, scales, biases), with its body replaced by hidden
states that are already there. Shapes: R rows, Q asked-for values, D hidden size, V vocabulary.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

CHUNK_BYTES = {"cpu": 2**22, "cuda": 2**29}
"""Float32 logits at once. On a CPU they stay in its cache from the product to the sum."""
WHOLE_CHUNK_BYTES = {"cpu": 2**27, "cuda": 2**29}
"""The same for heads that cannot be sliced, whose weights are read again for every few rows."""
MIN_SLICE = 1024


def proven_head(model: PreTrainedModel, *, sliceable: bool) -> "TokenHead | None":
    """Make a head and try it on three tokens; None where it does not give what the whole model gives."""
    ids = torch.arange(3, device=model.device)[None]
    rows, targets = ids[0, :2], ids[0, 1:]
    with torch.inference_mode():
        expected = logprobs_of(model(input_ids=ids, use_cache=False).logits[0, :2].float(), targets)
        try:
            head = TokenHead(model, sliceable=sliceable)
            found = head(model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0], rows, targets)
        except (AttributeError, TypeError):  # the model passes more than hidden states from body to head
            return None
    rounding = 1e-3 if model.dtype == torch.float32 else 0.25
    return head if torch.allclose(found, expected, rtol=0, atol=rounding) else None


def logprobs_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probability [Q] of one target in each row of float32 logits [Q, V]."""
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(-1)


class TokenHead:
    """Log-probabilities of single tokens after given hidden states, in float32 whatever the model's dtype.

    sliceable: whether what the model does to its logits can be done to a slice of the vocabulary.
    """

    def __init__(self, model: PreTrainedModel, *, sliceable: bool) -> None:
        self._model = copy.copy(model)
        self._model._modules = dict(model._modules)
        setattr(self._model, model.base_model_prefix, _GivenStates())
        output = model.get_output_embeddings()
        self._vocabulary = int(output.weight.shape[0])
        self._device = model.device.type
        self._linear: _SlicedLinear | None = None
        if type(output) is nn.Linear:
            linear = _SlicedLinear(output)
            self._model.set_output_embeddings(linear)
            self._linear = linear if sliceable else None

    def __call__(self, hidden: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
        """Return float32 [Q]: the log-probability of `targets[i]` after `hidden[rows[i]]`. rows are sorted."""
        unit = MIN_SLICE if self._linear else self._vocabulary
        size = max(1, WHOLE_CHUNK_BYTES[self._device] // (4 * unit))
        parts = zip(rows.split(size), targets.split(size), strict=True)
        return torch.cat([self._some(hidden, *part) for part in parts])

    def _some(self, hidden: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
        distinct, place = torch.unique_consecutive(rows, return_inverse=True)
        chosen = torch.zeros(len(rows), dtype=torch.float32, device=hidden.device)
        sums = []
        for low, logits in self._logits(hidden[distinct]):
            sums.append(logits.logsumexp(-1))
            column = targets - low
            inside = (column >= 0) & (column < logits.shape[1])
            chosen = torch.where(inside, logits[place, column.clamp(0, logits.shape[1] - 1)], chosen)
        return chosen - torch.stack(sums).logsumexp(0)[place]

    def _logits(self, states: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield float32 logits [R, slice] with the slice's first token, until the vocabulary is done."""
        size = self._vocabulary
        if self._linear:
            size = max(MIN_SLICE, CHUNK_BYTES[self._device] // (4 * len(states)) // MIN_SLICE * MIN_SLICE)
        for low in range(0, self._vocabulary, size):
            if self._linear:
                self._linear.slice = slice(low, low + size)
            yield low, self._model(inputs_embeds=states.unsqueeze(0), use_cache=False).logits[0].float()


class _States(BaseModelOutputWithPast):
    """Hidden states, and None for whatever else a model may want to pass on."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


class _GivenStates(nn.Module):
    """A body whose work is done: it returns the embeddings it is given as its hidden states."""

    def forward(self, *ignored: Any, inputs_embeds: Tensor, **options: Any) -> BaseModelOutputWithPast:
        return _States(last_hidden_state=inputs_embeds)  # type: ignore[arg-type]


class _SlicedLinear(nn.Module):
    """A slice of a linear layer's outputs, with the sums of its products in float32.

    Logits rounded to bfloat16 would be off by up to 0.06 nats at a size of 16.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.slice = slice(None)

    def forward(self, states: Tensor) -> Tensor:
        flat, weight = states.flatten(0, -2), self.weight[self.slice]
        if flat.is_cuda and flat.dtype != torch.float32:
            logits = torch.mm(flat, weight.t(), out_dtype=torch.float32)
        else:
            logits = torch.mm(flat.float(), weight.float().t())
        logits = logits if self.bias is None else logits + self.bias[self.slice].float()
        shaped: Tensor = logits.unflatten(0, states.shape[:-1])
        return shaped
