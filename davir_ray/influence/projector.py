"""Steps on rows, and gradients of a target's rows, as projections: what `projected_step` measures.

Each projection is divided by the length of what it is of, so its own length is 1 but for the error of projecting.

D dimensions, N rows, M rows of a subtask.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from davir_ray.influence.adapted import AdaptedModel
from davir_ray.influence.directions import TARGET_ROWS, Steps, row_gradients
from davir_ray.influence.gradients import batches, mean_loss_weights, visit_gradients
from davir_ray.influence.moments import Moments
from davir_ray.influence.projection import DIMENSIONS, SEED, Projection
from davir_ray.influence.target import Subtask, Target
from davir_ray.logprobs.engine import TokenSequence

TOGETHER = 2
"""Batches of other kinds that are one here: making the signs of a batch costs as much as multiplying eight rows."""
TARGET_BYTES = 2**30
"""Whole gradients of a target's rows that are held at once, for the same reason."""


class Projector:
    """Projects Adam's steps on rows, each parameter's as the backward pass hands out its gradients."""

    def __init__(
        self, model: AdaptedModel, moments: Moments, dimensions: int = DIMENSIONS, seed: int = SEED
    ) -> None:
        self.model, self.dimensions, self.seed = model, dimensions, seed
        self.steps = Steps(model, moments)

    def project(self, sequences: Sequence[TokenSequence]) -> tuple[Tensor, Tensor]:
        """Return the projections of the rows' normalised steps, and the norms of the steps.

        float32 [N, D] and float64 [N]. A row's loss is the mean over its counted tokens.
        """
        vectors = torch.zeros(len(sequences), self.dimensions)
        norms = torch.zeros(len(sequences), dtype=torch.float64)
        for batch in batches(self.model, sequences, TOGETHER):
            sums, squares = self._batch([sequences[index] for index in batch])
            norms[batch] = squares.sqrt()
            vectors[batch] = (sums / squares.sqrt()[:, None]).float()
        return vectors, norms

    def _batch(self, rows: Sequence[TokenSequence]) -> tuple[Tensor, Tensor]:
        projection = Projection(len(rows), self.model.device, self.dimensions, self.seed)
        squares = torch.zeros(len(rows), dtype=torch.float64)

        def visit(name: str, gradients: Tensor) -> None:
            steps = self.steps(name, gradients).flatten(1)
            squares.add_(torch.linalg.vector_norm(steps, dim=1).double().square().cpu())
            projection.add(name, steps)

        visit_gradients(self.model, rows, mean_loss_weights(rows), visit)
        return projection.values().cpu(), squares


def project_target(
    model: AdaptedModel, target: Target, dimensions: int = DIMENSIONS, seed: int = SEED
) -> dict[str, Tensor]:
    """Return the projections of the normalised gradients of each subtask's rows: float32 [M, D].

    Of pairs the gradient of DPO's loss; of others that of the response's mean loss. The order of a subtask's rows never
    shows. Raises `EngineError` for a row without a direction.
    """
    return {one.name: _projected(model, one, target.of_pairs, dimensions, seed) for one in target.subtasks}


def _projected(model: AdaptedModel, subtask: Subtask, pairs: bool, dimensions: int, seed: int) -> Tensor:
    parts = []
    for gradients, norms in row_gradients(model, subtask, pairs, _rows_at_once(model)):
        projection = Projection(len(norms), model.device, dimensions, seed)
        for name, rows in gradients.items():
            projection.add(name, rows.flatten(1))
        parts.append((projection.values() / norms[:, None]).float().cpu())
    return torch.cat(parts)


def _rows_at_once(model: AdaptedModel) -> int:
    size = sum(one.linear.weight.numel() * one.linear.weight.element_size() for one in model.watched)
    return max(TARGET_ROWS, TARGET_BYTES // size)
