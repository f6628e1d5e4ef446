"""The kind `projected_step`: Adam's step on a row as LESS and ROSE store it, and what it is compared with.

A step of a million numbers and more is projected to 8,192 (see projection.py), and kept. So it knows of no target: the
gradients of a target's rows, projected by the same signs, are laid beside the stored steps of all rows, and another
target measures no row of the corpus again.

K subtasks, N rows, M rows of a subtask, D dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.config import EngineConfig
from davir_ray.influence.checkpoint import check_checkpoint
from davir_ray.influence.kinds import check_takes_gradients, gpu_deaths_told
from davir_ray.influence.target import Target
from davir_ray.logprobs.choice import Choice
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.models.resolve import ResolvedModel
from davir_ray.schema import ID

if TYPE_CHECKING:
    from davir_ray.influence.projector import Projector

APART = 0.05
"""How far the cosine of two projections of a row may be below 1: two runs at once may measure it in different batches,
which round differently in bfloat16. Another model is further away."""
VECTOR = pa.list_(pa.float16())
COSINES = pa.schema([("norm", pa.float64()), ("cosines", pa.list_(pa.float64()))])
"""What is read of stored steps once a target is known: the norms of the steps, and a cosine a subtask."""


@dataclass(frozen=True)
class ProjectedKind:
    """A kind of measurement: the step on a row, projected. See `measure.kind.Kind`.

    dimensions, seed: of the projection. The published ones: projections by other signs cannot be compared with these.
    """

    name: str = "projected_step"
    implies: tuple[str, ...] = ()
    dimensions: int = 8192
    seed: int = 0

    @property
    def columns(self) -> pa.Schema:
        """The columns of a part. norm: of the step. vector: the projection of the step, divided by that norm."""
        fields = [("sequence_id", ID), ("norm", pa.float64()), ("vector", VECTOR)]
        return pa.schema([pa.field(name, type, nullable=False) for name, type in fields])

    def fingerprint(self) -> str:
        """Name the signs; no target."""
        return f"{self.dimensions} dimensions, seed {self.seed}"

    def check(self, choice: Choice) -> None:
        """Check that the chosen engine is one that gradients can be taken with. Raises `EngineError`."""
        check_takes_gradients(choice, self.name)

    def check_model(self, model: ResolvedModel) -> None:
        """Check that steps can be taken under a model, from its files alone. Raises `ModelError`."""
        check_checkpoint(model, moments=True)

    def open(
        self, choice: Choice, config: EngineConfig, model: ResolvedModel, max_length: int
    ) -> "ProjectedMeasurer":
        """Load a checkpoint in this process. Raises `EngineError`, `ModelError`."""
        from davir_ray.influence.adapted import load_adapted
        from davir_ray.influence.moments import read_moments
        from davir_ray.influence.projector import Projector

        moments = read_moments(str(model.adapter_path))
        adapted = load_adapted(model, choice.dtype, choice.device)
        return ProjectedMeasurer(Projector(adapted, moments, self.dimensions, self.seed))

    def of_target(
        self, choice: Choice, model: ResolvedModel, target: Target
    ) -> dict[str, NDArray[np.float32]]:
        """Project the gradients of a target's rows under a checkpoint: subtask -> [M, D].

        Of pairs the gradient of DPO's loss; of others that of the response's mean loss. Raises `EngineError`,
        `ModelError`.
        """
        from davir_ray.influence.adapted import load_adapted
        from davir_ray.influence.projector import project_target

        adapted = load_adapted(model, choice.dtype, choice.device)
        found = project_target(adapted, target, dimensions=self.dimensions, seed=self.seed)
        return {name: vectors.numpy() for name, vectors in found.items()}

    def beside(self, vectors: Mapping[str, NDArray[np.float32]]) -> tuple[pa.Schema, "Alignment"]:
        """Return what is read of stored steps beside the projections of a target's rows, and what makes it of them."""
        return COSINES, Alignment.with_target(vectors)

    def flaws(self, measured: pa.Table) -> dict[int, str]:
        """Return row -> what no measurement has: a step of no length, or a projection that is none."""
        norm, lists = measured["norm"].to_numpy(), measured["vector"].combine_chunks()
        lengths = np.asarray(lists.value_lengths())
        found = {
            index: f"a projection to {lengths[index]} dimensions"
            for index in np.flatnonzero(lengths != self.dimensions).tolist()
        }
        owners = np.repeat(np.arange(len(measured)), lengths)
        values = np.asarray(lists.flatten(), dtype=np.float32)
        squares = np.bincount(owners, weights=values.astype(np.float64) ** 2, minlength=len(measured))
        odd = ~(np.isfinite(squares) & (squares > 0)) & (lengths == self.dimensions)
        found |= {index: "a projection without a direction" for index in np.flatnonzero(odd).tolist()}
        still = ~(np.isfinite(norm) & (norm > 0))
        return found | {index: f"a step of length {norm[index]}" for index in np.flatnonzero(still).tolist()}

    def contradicts(self, one: pa.Table, other: pa.Table) -> NDArray[np.bool_]:
        """Tell where two measurements of a sequence cannot both be true; the rows of both tables go together."""
        ours, theirs = (_directions_in(table, self.dimensions) for table in (one, other))
        cosines = (ours * theirs).sum(axis=1)
        return np.asarray(cosines < 1 - APART)


class ProjectedMeasurer:
    """A checkpoint under which steps are projected."""

    def __init__(self, projector: "Projector") -> None:
        self.projector = projector

    def measure(self, sequences: Sequence[TokenSequence]) -> pa.Table:
        """Return `norm` and `vector` of each sequence, in order. Raises `EngineDied` where a GPU cannot go on."""
        with gpu_deaths_told():
            vectors, norms = self.projector.project(sequences)
        kept = vectors.half().numpy()
        return pa.table(
            {"norm": pa.array(norms.numpy(), pa.float64()), "vector": pa.array(list(kept), VECTOR)}
        )

    def close(self) -> None:
        """Free the model's memory; the measurer cannot be used afterwards."""
        del self.projector


@dataclass(frozen=True)
class Alignment:
    """How stored steps lie to a target.

    directions: the mean of the normalised projections of each subtask's rows, float32 [K, D]; its product with a row's
    normalised projection is the mean of the cosines.
    """

    directions: NDArray[np.float32]

    @classmethod
    def with_target(cls, vectors: Mapping[str, NDArray[np.float32]]) -> "Alignment":
        """Lay out the projections of a target's rows [M, D] by subtask."""
        return cls(np.stack([_normalised(some).mean(axis=0) for some in vectors.values()]))

    def __call__(self, stored: pa.Table) -> pa.Table:
        """Put a step's mean cosine with each subtask's rows, `cosines`, in the place of its `vector`."""
        found = _directions_in(stored, self.directions.shape[1]) @ self.directions.T
        cosines = pa.array(list(found.astype(np.float64)), COSINES.field("cosines").type)
        return stored.drop_columns("vector").append_column("cosines", cosines)


def _directions_in(stored: pa.Table, dimensions: int) -> NDArray[np.float32]:
    """Return the normalised projections of some rows [N, D]."""
    flat = np.asarray(stored["vector"].combine_chunks().flatten(), dtype=np.float32)
    return _normalised(flat.reshape(len(stored), dimensions))


def _normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


PROJECTED_STEP = ProjectedKind()
