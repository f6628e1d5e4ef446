"""A tiny Llama with a LoRA adapter, token sequences, and gradients of rows taken one at a time by plain autograd."""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from davir_ray.influence.moments import Moments, write_moments
from davir_ray.influence.target import Subtask, Target, TargetRow
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.models.resolve import ResolvedModel

VOCABULARY = 97


def tiny_adapted(dtype=torch.float64, **lora) -> PeftModel:
    """Make a base with an adapter whose parameters are not those of a fresh one."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    settings = {
        "r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.5,
        "target_modules": ["q_proj", "v_proj", "down_proj"],
    }
    base = LlamaForCausalLM(config).to(dtype)
    if dtype == torch.float64:
        for module in base.modules():
            if isinstance(module, LlamaRMSNorm):
                module.forward = partial(_normalised, module)
    model = get_peft_model(
        base,
        LoraConfig(**settings | lora, task_type="CAUSAL_LM"),
        autocast_adapter_dtype=dtype != torch.float64,
    )
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter) * 0.1
    return model.eval()


def _normalised(module: LlamaRMSNorm, states: torch.Tensor) -> torch.Tensor:
    """Compute in float64 what transformers computes in float32."""
    variance = states.square().mean(-1, keepdim=True)
    return module.weight * states * torch.rsqrt(variance + module.variance_epsilon)


def sequences(count: int, seed: int = 0, longest: int = 30) -> list[TokenSequence]:
    """Draw token sequences, some of whose tokens count."""
    random = np.random.default_rng(seed)
    return [_sequence(random, int(random.integers(3, longest))) for _ in range(count)]


def _sequence(random, length: int) -> TokenSequence:
    scored = random.random(length) < 0.5
    scored[0], scored[int(random.integers(1, length))] = False, True
    return TokenSequence(random.integers(0, VOCABULARY, length).astype(np.int32), scored)


def summed_logprob(model, sequence: TokenSequence) -> torch.Tensor:
    """Return the log-probability of a sequence's counted tokens."""
    ids = torch.from_numpy(sequence.ids.astype(np.int64))
    logprobs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
    return sum(logprobs[t - 1, ids[t]] for t in np.flatnonzero(sequence.scored).tolist())


def gradient_by_autograd(model: PeftModel, loss) -> torch.Tensor:
    """Return the gradient of `loss(model)` over the adapter's parameters, as one vector in the order of their names."""
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    loss(model).backward()
    gradients = {
        name.replace(".default", ""): parameter.grad
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }
    assert set(gradients) == set(get_peft_model_state_dict(model))
    return flat(gradients)


def flat(by_name) -> torch.Tensor:
    """Put tensors by name into one vector."""
    return torch.cat([by_name[name].flatten() for name in sorted(by_name)])


def by_hand(model: PeftModel, row: TokenSequence) -> torch.Tensor:
    """Return the gradient of a row's mean loss."""
    return gradient_by_autograd(model, lambda it: -summed_logprob(it, row) / int(row.scored.sum()))


def step_by_hand(gradient: torch.Tensor, moments: Moments) -> torch.Tensor:
    """Return LESS's step: epsilon within the root, no correction of bias."""
    first, second = flat(moments.first), flat(moments.second)
    return (0.9 * first + 0.1 * gradient) / (0.999 * second + 0.001 * gradient**2 + 1e-8) ** 0.5


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the cosine of two vectors."""
    return float(one @ other / (one.norm() * other.norm()))


def dpo_loss(model: PeftModel, chosen: TokenSequence, rejected: TokenSequence, beta: float) -> torch.Tensor:
    """Return DPO's loss of a pair; the frozen policy is another copy of the base."""
    frozen = copy.deepcopy(model).unload()
    with torch.no_grad():
        before = [summed_logprob(frozen, one) for one in (chosen, rejected)]
    ratios = [summed_logprob(model, one) - past for one, past in zip((chosen, rejected), before, strict=True)]
    return -torch.nn.functional.logsigmoid(beta * (ratios[0] - ratios[1]))


def tiny_target(seed: int = 1) -> Target:
    """Make two subtasks of two pairs and one."""
    rows = sequences(6, seed)
    return Target(
        tuple(
            Subtask(
                name, tuple(TargetRow(*pair) for pair in zip(rows[at::4], rows[at + 1 :: 4], strict=False))
            )
            for name, at in (("a", 0), ("b", 1))
        )
    )


def saved_checkpoint(folder: Path) -> ResolvedModel:
    """Save the base and the adapter in float32, with moments."""
    adapted = tiny_adapted(torch.float32)
    adapted.save_pretrained(folder / "adapter")
    first = {
        name.replace(".default", ""): torch.full_like(one, 1e-3)
        for name, one in adapted.named_parameters()
        if "lora_" in name
    }
    second = {name: one * 1e-3 for name, one in first.items()}
    write_moments(folder / "adapter", Moments(first, second, 1e-5, 1, 10))
    adapted.unload().save_pretrained(folder / "base")
    base = str(folder / "base")
    return ResolvedModel(base, str(folder / "adapter"), "id", base)
