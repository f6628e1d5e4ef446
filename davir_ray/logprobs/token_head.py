"""The last step of a language model, on the rows that are asked for and a few at a time.

The model's own code does it (heads differ: soft caps, scales, biases), with its body replaced by hidden states
that are already there. Shapes: R rows, Q asked-for values, D hidden size, V vocabulary.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

CPU_CHUNK_BYTES = 2**24
"""Float32 logits at once on a CPU: they stay in its cache from the product to the sum."""
GPU_CHUNK_BYTES = 2**29


class TokenHead:
    """Log-probabilities of single tokens after given hidden states, in float32 whatever the model's dtype."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = copy.copy(model)
        self._model._modules = dict(model._modules)
        setattr(self._model, model.base_model_prefix, _GivenStates())
        output = model.get_output_embeddings()
        if type(output) is nn.Linear:
            self._model.set_output_embeddings(_Float32Linear(output))
        chunk = GPU_CHUNK_BYTES if model.device.type == "cuda" else CPU_CHUNK_BYTES
        self._rows = max(1, chunk // (4 * output.weight.shape[0]))

    def __call__(self, hidden: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
        """Return float32 [Q]: the log-probability of `targets[i]` after `hidden[rows[i]]`. rows are sorted."""
        distinct, place = torch.unique_consecutive(rows, return_inverse=True)
        starts = torch.arange(0, len(distinct), self._rows, device=rows.device)
        bounds = [*torch.searchsorted(place, starts).tolist(), len(rows)]
        parts = []
        for chunk, (low, high) in enumerate(zip(bounds, bounds[1:], strict=False)):
            first = chunk * self._rows
            logits = self._logits(hidden[distinct[first : first + self._rows]])
            chosen = logits[place[low:high] - first, targets[low:high]]
            parts.append(chosen - logits.logsumexp(-1)[place[low:high] - first])
        return torch.cat(parts)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._model(inputs_embeds=hidden.unsqueeze(0), use_cache=False).logits[0].float()


class _GivenStates(nn.Module):
    """A body whose work is done: it returns the embeddings it is given as its hidden states."""

    def forward(self, inputs_embeds: Tensor, **ignored: Any) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=inputs_embeds)


class _Float32Linear(nn.Module):
    """A linear layer that keeps its products' sums in float32.

    Logits rounded to bfloat16 would be off by up to 0.06 nats at a size of 16.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, states: Tensor) -> Tensor:
        flat = states.flatten(0, -2)
        if flat.is_cuda and flat.dtype != torch.float32:
            logits = torch.mm(flat, self.weight.t(), out_dtype=torch.float32)
        else:
            logits = torch.mm(flat.float(), self.weight.float().t())
        logits = logits if self.bias is None else logits + self.bias.float()
        return logits.unflatten(0, states.shape[:-1])
