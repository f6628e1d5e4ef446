"""The yardstick of trainings: plain PyTorch, one row at a time without padding; nothing of davir_ray, TRL or Ray."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM


@dataclass(frozen=True)
class Curve:
    """loss: before each step; grad_norm: of each step, before it is clipped."""

    loss: list[float]
    grad_norm: list[float]


Row = tuple[list[int], list[bool]]


def logp(model, row: Row) -> torch.Tensor:
    """Sum the log-probabilities of the tokens that count."""
    ids, scored = torch.tensor(row[0]), torch.tensor(row[1])
    logits = model(input_ids=ids[None]).logits[0, :-1]
    tokens = torch.log_softmax(logits, -1).gather(-1, ids[1:, None])[:, 0]
    return tokens[scored[1:]].sum()


def sft_loss(rows: list[Row]) -> Callable:
    """Mean over all tokens of all rows."""
    tokens = sum(sum(scored) for _, scored in rows)
    return lambda model: -sum(logp(model, row) for row in rows) / tokens


def dpo_loss(pairs: list[tuple[Row, Row]], base: str, beta: float, *, davir: bool) -> Callable:
    """Mean over pairs of -log sigmoid(beta * difference of the sides' gains)."""
    frozen_model = load(base)
    with torch.no_grad():
        frozen = [[logp(frozen_model, side) for side in pair] for pair in pairs]

    def gain(model, side: Row, was: torch.Tensor) -> torch.Tensor:
        change = logp(model, side) - was
        return change / -was if davir else change

    def loss(model) -> torch.Tensor:
        terms = [
            logsigmoid(beta * (gain(model, chosen, was[0]) - gain(model, rejected, was[1])))
            for (chosen, rejected), was in zip(pairs, frozen, strict=True)
        ]
        return -torch.stack(terms).mean()

    return loss


def load(base: str):
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def train(base: str, loss_of: Callable, steps: int, learning_rate: float) -> Curve:
    """Take steps of AdamW on all rows at once, with a linear schedule and gradients clipped to norm 1."""
    model = load(base).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    values, norms = [], []
    for _ in range(steps):
        loss = loss_of(model)
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        values.append(float(loss))
    return Curve(values, norms)
