"""Where the gradients of a target point, and how far a step on a row goes there.

A row z and a row v of the target are compared by the cosine of z's step and v's gradient. The mean over a subtask's
rows of these cosines is one product with the mean of their normalised gradients, so that mean is all that is kept of a
subtask, and nothing is estimated:

    mean over v of  <G(z), g(v)> / (|G(z)| |g(v)|)  =  <G(z), d> / |G(z)|,    d = mean over v of  g(v) / |g(v)|

The step is Adam's as LESS publishes it (arXiv 2402.04333, and its code): with the moments m and v of a checkpoint,

    G = (0.9 m + 0.1 g) / sqrt(0.999 v + 0.001 g^2 + 1e-8)

or the gradient g itself. The gradient of DPO's loss of a pair is a positive number times that of
log p(rejected) - log p(chosen), so that its direction, which is all that counts here, depends on neither beta nor the
frozen policy: neither is computed (ROSE, arXiv 2412.00631, computes both).

K subtasks, B rows of a batch.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from davir_ray.errors import EngineError
from davir_ray.influence.adapted import AdaptedModel
from davir_ray.influence.gradients import batches, mean_loss_weights, visit_gradients
from davir_ray.influence.moments import Moments
from davir_ray.influence.target import Subtask, Target
from davir_ray.logprobs.engine import TokenSequence

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
TARGET_ROWS = 4
"""Rows of a target whose whole gradients are held at once."""

Directions = Mapping[str, Tensor]
"""Parameter -> its part of each subtask's direction [K, *shape]."""


def target_directions(model: AdaptedModel, target: Target, *, pairs: bool) -> dict[str, Tensor]:
    """Return the mean of the normalised gradients of each subtask's rows.

    pairs: of DPO's loss; else of the mean loss of the (chosen) response. Raises `EngineError` for a row without a
    direction.
    """
    found = [_mean_direction(model, one, pairs) for one in target.subtasks]
    return {name: torch.stack([one[name] for one in found]) for name in found[0]}


def _mean_direction(model: AdaptedModel, subtask: Subtask, pairs: bool) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for gradients, norms in row_gradients(model, subtask, pairs):
        for name, rows in gradients.items():
            scaled = (rows.double() / norms.to(rows.device).view(-1, *[1] * (rows.dim() - 1))).sum(0)
            total[name] = total.get(name, 0) + scaled
    return {name: (one / len(subtask.rows)).to("cpu", _kept(model)) for name, one in total.items()}


def _kept(model: AdaptedModel) -> torch.dtype:
    """Return the dtype of the adapter's parameters."""
    return model.watched[0].linear.weight.dtype


def row_gradients(
    model: AdaptedModel, subtask: Subtask, pairs: bool, at_once: int = TARGET_ROWS
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Yield the gradients of some rows of a target by parameter [B, *shape], and their norms float64 [B].

    pairs: of DPO's loss, but for a positive factor; else of the mean loss of the (chosen) response. at_once: rows whose
    gradients are held. Raises `EngineError` for a row without a direction.
    """
    rows = sorted(subtask.rows, key=lambda row: row.digest)  # so that their order never shows
    for at in range(0, len(rows), at_once):
        some = rows[at : at + at_once]
        chosen = [row.chosen for row in some]
        if pairs:
            rejected = [row.rejected for row in some if row.rejected is not None]
            ones = [1.0] * len(some)
            gradients = _minus(_whole(model, chosen, ones), _whole(model, rejected, ones))
        else:
            gradients = _whole(model, chosen, mean_loss_weights(chosen))
        norms = sum(one.double().flatten(1).square().sum(1) for one in gradients.values()).sqrt()  # type: ignore[union-attr]
        if not bool((norms.isfinite() & (norms > 0)).all()):
            raise EngineError(
                f"target: subtask {subtask.name}: the gradient of a row is 0 or not finite: it points nowhere"
            )
        yield gradients, norms


def _minus(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: rows - other[name] for name, rows in one.items()}


def _whole(
    model: AdaptedModel, sequences: Sequence[TokenSequence], weights: Sequence[float]
) -> dict[str, Tensor]:
    """Return the gradients of some rows by parameter [B, *shape]."""
    parts: dict[str, list[Tensor | None]] = {}
    for batch in batches(model, sequences):

        def keep(name: str, gradients: Tensor, batch: list[int] = batch) -> None:
            rows = parts.setdefault(name, [None] * len(sequences))
            for index, gradient in zip(batch, gradients, strict=True):
                rows[index] = gradient

        visit_gradients(model, [sequences[i] for i in batch], [weights[i] for i in batch], keep)
    return {name: torch.stack([row for row in rows if row is not None]) for name, rows in parts.items()}


class Steps:
    """Makes steps of gradients, a parameter at a time. moments: of Adam; None takes plain gradients."""

    def __init__(self, model: AdaptedModel, moments: Moments | None) -> None:
        self.carried = None if moments is None else _carried(moments, model)

    def __call__(self, name: str, gradients: Tensor) -> Tensor:
        """Return the steps on some rows, of one parameter, from their gradients [B, *shape]."""
        if self.carried is None:
            return gradients
        first, second = self.carried[name]
        root = torch.addcmul(second, gradients, gradients, value=1 - BETA2).sqrt_()
        return torch.add(first, gradients, alpha=1 - BETA1).div_(root)


class Aligner:
    """Compares the steps on rows with the directions of a target. moments: of Adam; None takes plain gradients."""

    def __init__(self, model: AdaptedModel, directions: Directions, moments: Moments | None) -> None:
        self.model = model
        self.directions = {name: one.flatten(1).t().contiguous() for name, one in directions.items()}
        self.subtasks = len(next(iter(directions.values())))
        self.steps = Steps(model, moments)

    def align(self, sequences: Sequence[TokenSequence]) -> tuple[Tensor, Tensor]:
        """Return the mean cosine of each row with each subtask's rows, and the norms of the rows' steps.

        float64 [N, K] and [N]. A row's loss is the mean over its counted tokens.
        """
        cosines = torch.zeros(len(sequences), self.subtasks, dtype=torch.float64)
        norms = torch.zeros(len(sequences), dtype=torch.float64)
        for batch in batches(self.model, sequences):
            rows = [sequences[index] for index in batch]
            dots, squares = self._batch(rows)
            norms[batch] = squares.sqrt()
            cosines[batch] = dots / squares.sqrt()[:, None]
        return cosines, norms

    def _batch(self, rows: Sequence[TokenSequence]) -> tuple[Tensor, Tensor]:
        dots = torch.zeros(len(rows), self.subtasks, dtype=torch.float64)
        squares = torch.zeros(len(rows), dtype=torch.float64)

        def visit(name: str, gradients: Tensor) -> None:
            steps = self.steps(name, gradients).flatten(1)
            # Within a parameter in its dtype, between them in float64: a float32 sum of so many is off by 1e-6.
            squares.add_(torch.linalg.vector_norm(steps, dim=1).double().square().cpu())
            dots.add_((steps @ self.directions[name]).double().cpu())

        visit_gradients(self.model, rows, mean_loss_weights(rows), visit)
        return dots, squares


def _carried(moments: Moments, model: AdaptedModel) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what a step takes over from the moments: 0.9 m, and 0.999 v + 1e-8."""
    dtype, device = _kept(model), model.device
    return {
        name: (
            moments.first[name].to(device, dtype) * BETA1,
            moments.second[name].to(device, dtype) * BETA2 + EPSILON,
        )
        for name in moments.first
    }
