"""The last step of a language model, on the rows that are asked for and a slice of the vocabulary at a time.

The model's own code does it (heads differ: soft caps, scales, biases), with its body replaced by hidden
states that are already there. Shapes: R rows, Q asked-for values, D hidden size, V vocabulary.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from davir_ray.logprobs.engine import MOST_RANK, Wanted

CHUNK_BYTES = {"cpu": 2**22, "cuda": 2**29}
"""Float32 logits at once. On a CPU they stay in its cache from the product to the sum."""
WHOLE_CHUNK_BYTES = {"cpu": 2**27, "cuda": 2**29}
"""The same for heads that cannot be sliced, whose weights are read again for every few rows, and for ranks."""
MIN_SLICE = 1024
NO_LOGPROB = -110.0
"""In float32 e to the power of it is 0, and so is their product, which with -inf in its place would be NaN."""


@dataclass(frozen=True, slots=True)
class HeadValues:
    """Values of Q asked-for tokens: float32 [Q], and where they are wanted uint8 [Q] and float32 [Q]."""

    logprobs: Tensor
    rank: Tensor | None
    entropy: Tensor | None


def proven_head(model: PreTrainedModel, *, sliceable: bool) -> "TokenHead | None":
    """Make a head and try it on three tokens; None where it does not give what the whole model gives."""
    ids = torch.arange(3, device=model.device)[None]
    rows, targets = ids[0, :2], ids[0, 1:]
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, :2].float()
        expected = values_of_rows(logits, targets, frozenset()).logprobs
        try:
            head = TokenHead(model, sliceable=sliceable)
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
            found = head(hidden, rows, targets, frozenset()).logprobs.float()
        except (AttributeError, TypeError):  # the model passes more than hidden states from body to head
            return None
    rounding = 1e-3 if model.dtype == torch.float32 else 0.25
    return head if torch.allclose(found, expected, rtol=0, atol=rounding) else None


def values_of_rows(logits: Tensor, targets: Tensor, wanted: Wanted) -> HeadValues:
    """Return the values of one target in each row of float32 logits [Q, V]."""
    return _values_of([(0, logits)], targets, torch.arange(len(targets), device=targets.device), wanted)


def _values_of(
    slices: Iterable[tuple[int, Tensor]], targets: Tensor, place: Tensor, wanted: Wanted
) -> HeadValues:
    """Read the values of targets [Q] off logits [R, slice], given slice by slice with their first token.

    place: int64 [Q], the row of each target. For ranks all slices are held until the last, for a target's logit may
    stand in any of them.
    """
    chosen = torch.zeros(len(targets), dtype=torch.float32, device=targets.device)
    sums, entropies, held = [], [], []
    for low, logits in slices:
        sums.append(logits.logsumexp(-1))
        column = targets - low
        inside = (column >= 0) & (column < logits.shape[1])
        chosen = torch.where(inside, logits[place, column.clamp(0, logits.shape[1] - 1)], chosen)
        if "entropy" in wanted:
            entropies.append(_entropy_within(logits, sums[-1]))
        if "rank" in wanted:
            held.append(logits)
    total = torch.stack(sums).logsumexp(0)
    return HeadValues(
        logprobs=chosen - total[place],
        rank=_ranks(held, place, chosen) if "rank" in wanted else None,
        entropy=_entropy(sums, total, entropies)[place] if "entropy" in wanted else None,
    )


def _entropy_within(logits: Tensor, sums: Tensor) -> Tensor:
    """Return the entropy [R] of the distribution within a slice; 0 where it has no probability at all."""
    finite = sums.clamp(min=torch.finfo(torch.float32).min)
    logprobs = (logits - finite[:, None]).clamp_(NO_LOGPROB, 0)
    return -logprobs.exp().mul_(logprobs).sum(-1)


def _entropy(sums: list[Tensor], total: Tensor, within: list[Tensor]) -> Tensor:
    """Return the entropy [R] over all slices: of which slice a token lies in, and of which token of it.

    Every term is positive, so nothing cancels, as it would in the log-sum-exp less the mean logit.
    """
    shares = (torch.stack(sums) - total).exp()
    return (torch.special.entr(shares) + shares * torch.stack(within)).sum(0).clamp(min=0)


def _ranks(slices: Sequence[Tensor], place: Tensor, chosen: Tensor) -> Tensor:
    """Return uint8 [Q]: 1 + how many logits of a target's row are larger than its own, clipped."""
    larger = torch.zeros_like(chosen)
    for logits in slices:
        rows = logits if len(logits) == len(place) else logits[place]
        # As 0 and 1 in float32, for torch sums truth values at a fifth of the speed on a CPU.
        larger += torch.gt(rows, chosen[:, None], out=torch.empty_like(rows)).sum(-1)
    return (larger + 1).clamp(max=MOST_RANK).to(torch.uint8)


class TokenHead:
    """Values of single tokens after given hidden states, in float32 whatever the model's dtype.

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

    def __call__(self, hidden: Tensor, rows: Tensor, targets: Tensor, wanted: Wanted) -> HeadValues:
        """Return the values [Q] of `targets[i]` after `hidden[rows[i]]`. rows are sorted."""
        unit = MIN_SLICE if self._linear and "rank" not in wanted else self._vocabulary
        size = max(1, WHOLE_CHUNK_BYTES[self._device] // (4 * unit))
        pairs = zip(rows.split(size), targets.split(size), strict=True)
        parts = [self._some(hidden, *pair, wanted) for pair in pairs]
        return HeadValues(
            logprobs=torch.cat([part.logprobs for part in parts]),
            rank=_joined([part.rank for part in parts]),
            entropy=_joined([part.entropy for part in parts]),
        )

    def logits(self, states: Tensor) -> Tensor:
        """Return logits [R, V] after hidden states [R, D], for a head that is not sliced; gradients pass."""
        ((_, logits),) = self._logits(states)
        return logits

    def _some(self, hidden: Tensor, rows: Tensor, targets: Tensor, wanted: Wanted) -> HeadValues:
        distinct, place = torch.unique_consecutive(rows, return_inverse=True)
        return _values_of(self._logits(hidden[distinct]), targets, place, wanted)

    def _logits(self, states: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield float32 logits [R, slice] with the slice's first token, until the vocabulary is done."""
        size = self._vocabulary
        if self._linear:
            size = max(MIN_SLICE, CHUNK_BYTES[self._device] // (4 * len(states)) // MIN_SLICE * MIN_SLICE)
        for low in range(0, self._vocabulary, size):
            if self._linear:
                self._linear.slice = slice(low, low + size)
            yield low, _wide(self._model(inputs_embeds=states.unsqueeze(0), use_cache=False).logits[0])


def _wide(values: Tensor) -> Tensor:
    """Return values in float32, or in the wider dtype that they have."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found) if found else None


class _States(BaseModelOutputWithPast):
    """Hidden states, and None for whatever else a model may want to pass on."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


class _GivenStates(nn.Module):
    """A body whose work is done: it returns the embeddings it is given as its hidden states."""

    def forward(self, *ignored: Any, inputs_embeds: Tensor, **options: Any) -> BaseModelOutputWithPast:
        return _States(last_hidden_state=inputs_embeds)  # type: ignore[arg-type]


def _wide_product(one: Tensor, other: Tensor) -> Tensor:
    """Multiply matrices of one dtype, with their sums in float32 or wider."""
    if one.is_cuda and one.element_size() < 4:
        return torch.mm(one, other, out_dtype=torch.float32)
    return torch.mm(_wide(one), _wide(other))


class _WideProduct(torch.autograd.Function):
    """`_wide_product` of states and frozen weights: for its narrow inputs torch has no derivative on a GPU."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return _wide_product(states, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return _wide_product(gradient.to(weight.dtype), weight.t()).to(weight.dtype), None


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
        logits: Tensor = _WideProduct.apply(flat, weight.t())
        logits = logits if self.bias is None else logits + _wide(self.bias[self.slice])
        shaped: Tensor = logits.unflatten(0, states.shape[:-1])
        return shaped
