"""A model with a LoRA adapter whose parameters can be watched: each tells its rows' own gradients as they appear.

B rows of a batch, N tokens of it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from davir_ray.errors import ModelError
from davir_ray.influence.checkpoint import check_checkpoint, check_plain_lora
from davir_ray.logprobs.hf.batching import Block
from davir_ray.logprobs.hf.model import Takes, load_model, packed_limit
from davir_ray.logprobs.hf.token_head import TokenHead, proven_head
from davir_ray.models.resolve import ResolvedModel

ADAPTER = "default"
Visit = Callable[[str, Tensor], None]
"""Takes the name of a parameter, as adapter_model.safetensors has it, and its gradients [B, *shape]."""


@dataclass(frozen=True)
class Watched:
    """A linear layer of the adapter. name: of its weight, as adapter_model.safetensors has it."""

    name: str
    linear: nn.Linear


class AdaptedModel:
    """A base with a LoRA adapter, in evaluation mode."""

    def __init__(self, model: PeftModel) -> None:
        check_plain_lora("the adapter", model.peft_config[ADAPTER].to_dict())
        self.model = model.eval()
        inner = model.get_base_model()
        assert isinstance(inner, PreTrainedModel)
        self.inner: PreTrainedModel = inner
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        self.watched = tuple(_watched(model))
        self.takes, self.packed_limit = Takes.of(inner), packed_limit(inner)
        self.own_attention: str = inner.config._attn_implementation
        self.visit: Visit | None = None
        self.blocks: Sequence[Block] = ()
        self.untold = set[str]()
        self.checkpointed = False
        for one in self.watched:
            one.linear.weight.requires_grad_(True)
            one.linear.forward = partial(self._forward, one)  # type: ignore[method-assign]
        for layer in inner.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.forward = partial(self._run_layer, layer.forward)  # type: ignore[method-assign]
        self.head = _head(inner)

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self.inner.device

    @contextmanager
    def telling(self, visit: Visit, blocks: Sequence[Block], *, checkpointed: bool) -> Iterator[None]:
        """Within, one forward and one backward pass of a batch tell `visit` every parameter's gradients.

        blocks: where the tokens of each row lie, one row after another. checkpointed: keep only what goes into each
        layer, and compute the rest once more in the backward pass. Raises `ModelError` where the model does not run
        each watched layer once, on all rows.
        """
        self.visit, self.blocks, self.checkpointed = visit, blocks, checkpointed
        self.untold = {one.name for one in self.watched}
        try:
            yield
        finally:
            self.visit, self.checkpointed = None, False
        if self.untold:
            raise ModelError(f"{min(self.untold)}: has no part in the loss of these rows")

    def _forward(self, one: Watched, states: Tensor) -> Tensor:
        if self.visit is not None and (states.dim() != 3 or states[..., 0].numel() != _tokens(self.blocks)):
            raise ModelError(
                f"{one.name}: is given tokens without their rows, whose gradients are not told apart"
            )
        output: Tensor = _RowGradients.apply(states, one.linear.weight, partial(self._tell, one.name))
        return output

    def _tell(self, name: str, states: Tensor, outputs: Tensor) -> None:
        """Tell `visit` the gradients of a layer's weight. states: what it was given; outputs: their gradients."""
        assert self.visit is not None
        if name not in self.untold:
            raise ModelError(
                f"{name}: is used by more than one layer; gradients are taken of layers used once"
            )
        self.untold.remove(name)
        given, wanted = states.flatten(0, 1), outputs.flatten(0, 1)
        self.visit(
            name,
            torch.cat(
                [torch.bmm(_rows(wanted, one).transpose(1, 2), _rows(given, one)) for one in self.blocks]
            ),
        )

    def _run_layer(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # transformers' own switch asks for a layer in training mode, in which some layers drop states.
        if not self.checkpointed:
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)


class _RowGradients(torch.autograd.Function):
    """A linear layer that hands out each row's gradient of its weight, and adds none up for the batch."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, tell: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(states, weight)
        ctx.tell = tell
        return states @ weight.t()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        states, weight = ctx.saved_tensors
        (gradient,) = gradients
        ctx.tell(states, gradient)
        return (gradient @ weight if ctx.needs_input_grad[0] else None), None, None


def _tokens(blocks: Sequence[Block]) -> int:
    return sum(one.count * one.length for one in blocks)


def _rows(states: Tensor, block: Block) -> Tensor:
    """Return the states of a block's rows [count, length, width], of all tokens' [N, width]."""
    end = block.first + block.count * block.length
    return states[block.first : end].view(block.count, block.length, -1)


def load_adapted(model: ResolvedModel, dtype: str, device: str) -> AdaptedModel:
    """Load a base in `dtype` with its adapter in float32. Raises `ModelError` for what gradients are not taken of."""
    check_checkpoint(model, moments=False)
    assert model.adapter_path is not None
    base: Any = load_model(model.model_path, None, dtype, device)
    adapted = PeftModel.from_pretrained(base, model.adapter_path, is_trainable=False)
    return AdaptedModel(adapted.to(device))


def _watched(model: PeftModel) -> Iterator[Watched]:
    """Find the linear layers of the adapter. Raises `ModelError` for one that is something else, or is of the head."""
    head = model.get_base_model().get_output_embeddings()  # type: ignore[operator, union-attr]
    for path, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        if ADAPTER not in module.lora_A:
            raise ModelError(
                f"{path}: is adapted as {type(module).__name__}; gradients are taken of linear layers"
            )
        if module is head or module.get_base_layer() is head:
            raise ModelError(f"{path}: is the head; gradients are taken of layers below it")
        for part in ("lora_A", "lora_B"):
            linear = getattr(module, part)[ADAPTER]
            if type(linear) is not nn.Linear or linear.bias is not None:
                raise ModelError(f"{path}.{part}: is no plain linear layer")
            yield Watched(f"{path}.{part}.weight", linear)


def _head(model: PreTrainedModel) -> TokenHead:
    with torch.no_grad():
        if model.config.is_encoder_decoder or not _is_causal(model):
            raise ModelError(
                f"{model.config.model_type}: tokens see those behind them; gradients are taken of decoders"
            )
        head = proven_head(model, sliceable=False)
    if head is None:
        raise ModelError(f"{model.config.model_type}: its head cannot be run apart from its body")
    return head


def _is_causal(model: PreTrainedModel) -> bool:
    """Tell whether what stands behind some tokens leaves their hidden states alone, as padding on the right must."""
    ids = torch.arange(1, 17, device=model.device)[None]
    padded = ids.clone()
    padded[:, 8:] = 0
    one, other = (
        model.base_model(input_ids=some, use_cache=False)[0][:, :8].float() for some in (ids, padded)
    )
    return bool((one - other).abs().max() < 0.01 * one.std())
