"""The kinds of measurement that say how far a step on a row moves a target.

    rose              Adam's step on the row, against the DPO gradients of preference pairs (arXiv 2412.00631)
    less              Adam's step on the row, against the gradients of responses (arXiv 2402.04333)
    gradient_cosine   the row's plain gradient, against the gradients of responses

A measurement is of one checkpoint of a warm-up. Its numbers depend on the target, which is a part of its fingerprint.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from davir_ray.config import EngineConfig
from davir_ray.errors import EngineDied, EngineError
from davir_ray.influence.checkpoint import check_checkpoint
from davir_ray.influence.target import Target
from davir_ray.logprobs.choice import Choice
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.models.resolve import ResolvedModel
from davir_ray.schema import ID

if TYPE_CHECKING:
    from davir_ray.influence.directions import Aligner

APART = 0.05
"""How far two cosines of one row may be apart: two runs at once may measure it in different batches, which round
differently in bfloat16."""
NORMS_APART = 0.1
"""How far two norms of one step may be apart, as a share of the larger: cosines with a target are near 0 for most rows
under any model, and norms are not."""
ROUNDED = 1e-3
"""How far a cosine may be beyond 1: it is a sum of many products."""


def check_takes_gradients(choice: Choice, kind: str) -> None:
    """Check that the chosen engine is one that gradients can be taken with. Raises `EngineError`."""
    if choice.type != "transformers":
        raise EngineError(
            f"engine.type: {choice.type} takes no gradients, which {kind} is made of; set it to transformers"
        )


@contextmanager
def gpu_deaths_told() -> Iterator[None]:
    """Raise `EngineDied` for an error after which a GPU cannot go on."""
    import torch

    try:
        yield
    except torch.AcceleratorError as error:
        raise EngineDied(f"the GPU cannot go on: {error}") from error


@dataclass(frozen=True)
class InfluenceKind:
    """A kind of measurement: the mean cosine of a row's step with the gradients of each subtask's rows.

    pairs: the target's gradients are those of DPO's loss. adam: the row's step is Adam's. target: what it is aimed at.
    ground: the target's directions under the model that measures, as `ground_of` makes them.
    """

    name: str
    pairs: bool
    adam: bool
    target: Target | None = None
    ground: bytes | None = None
    implies: tuple[str, ...] = ()

    @property
    def columns(self) -> pa.Schema:
        """The columns of a part. norm: of the step. cosines: one a subtask, in order."""
        fields = [("sequence_id", ID), ("norm", pa.float64()), ("cosines", pa.list_(pa.float64()))]
        return pa.schema([pa.field(name, type, nullable=False) for name, type in fields])

    def aimed(self, target: Target) -> "InfluenceKind":
        """Return the kind that is aimed at a target."""
        return replace(self, target=target)

    def fingerprint(self) -> str:
        """Name the target; empty for a kind that is aimed at none."""
        return "" if self.target is None else f"target {self.target.digest}"

    def check(self, choice: Choice) -> None:
        """Check that the chosen engine is one that gradients can be taken with. Raises `EngineError`."""
        check_takes_gradients(choice, self.name)

    def check_model(self, model: ResolvedModel) -> None:
        """Check that gradients can be taken under a model, from its files alone. Raises `ModelError`."""
        check_checkpoint(model, moments=self.adam)

    def ground_of(self, choice: Choice, config: EngineConfig, model: ResolvedModel, max_length: int) -> bytes:
        """Compute the target's directions under a model. Raises `EngineError`, `ModelError`."""
        from safetensors.torch import save

        from davir_ray.influence.adapted import load_adapted
        from davir_ray.influence.directions import target_directions

        assert self.target is not None
        adapted = load_adapted(model, choice.dtype, choice.device)
        directions = target_directions(adapted, self.target, pairs=self.pairs)
        tensors = {name: one.cpu().contiguous() for name, one in directions.items()}
        return save(tensors, {"target": self.target.digest})

    def grounded(self, data: bytes) -> "InfluenceKind":
        """Return the kind with the target's directions, as `ground_of` made them. Raises `ValueError` for others."""
        try:
            tensors = deserialize(data)
        except SafetensorError as error:
            raise ValueError(f"holds no directions: {error}") from error
        subtasks = len(self.target.subtasks) if self.target is not None else 0
        if not tensors or any(one["shape"][:1] != [subtasks] for _, one in tensors):
            raise ValueError(f"holds no directions of {subtasks} subtasks")
        return replace(self, ground=data)

    def open(
        self, choice: Choice, config: EngineConfig, model: ResolvedModel, max_length: int
    ) -> "InfluenceMeasurer":
        """Load a checkpoint in this process. Raises `EngineError`, `ModelError`."""
        from safetensors.torch import load

        from davir_ray.influence.adapted import load_adapted
        from davir_ray.influence.directions import Aligner
        from davir_ray.influence.moments import read_moments

        assert self.ground is not None
        moments = read_moments(str(model.adapter_path)) if self.adam else None
        adapted = load_adapted(model, choice.dtype, choice.device)
        directions = {name: one.to(adapted.device) for name, one in load(self.ground).items()}
        return InfluenceMeasurer(Aligner(adapted, directions, moments))

    def flaws(self, measured: pa.Table) -> dict[int, str]:
        """Return row -> what no measurement has: a length that is none, or cosines that are none."""
        norm = measured["norm"].to_numpy()
        lists = measured["cosines"].combine_chunks()
        owners = np.repeat(np.arange(len(measured)), np.asarray(lists.value_lengths()))
        cosines = np.asarray(lists.flatten())
        wrong = ~(np.isfinite(cosines) & (np.abs(cosines) <= 1 + ROUNDED))
        found = {index: "cosines that are none" for index in owners[wrong].tolist()}
        none = np.setdiff1d(np.flatnonzero(norm != 0), owners)
        found |= {index: "no cosines" for index in none.tolist()}
        odd = ~(np.isfinite(norm) & (norm >= 0))
        return found | {index: f"a step of length {norm[index]}" for index in np.flatnonzero(odd).tolist()}

    def contradicts(self, one: pa.Table, other: pa.Table) -> NDArray[np.bool_]:
        """Tell where two measurements of a sequence cannot both be true; the rows of both tables go together."""
        ours, theirs = (table["cosines"].combine_chunks() for table in (one, other))
        if not ours.value_lengths().equals(theirs.value_lengths()):
            return np.asarray(np.not_equal(ours.value_lengths(), theirs.value_lengths()))
        apart = np.abs(np.asarray(ours.flatten()) - np.asarray(theirs.flatten())) > APART
        owners = np.repeat(np.arange(len(one)), np.asarray(ours.value_lengths()))
        norms, others = one["norm"].to_numpy(), other["norm"].to_numpy()
        longer = np.abs(norms - others) > NORMS_APART * np.maximum(norms, others)
        wrong: NDArray[np.bool_] = longer | (np.bincount(owners, weights=apart, minlength=len(one)) > 0)
        return wrong


class InfluenceMeasurer:
    """A checkpoint that measures."""

    def __init__(self, aligner: "Aligner") -> None:
        self.aligner = aligner

    def measure(self, sequences: Sequence[TokenSequence]) -> pa.Table:
        """Return `norm` and `cosines` of each sequence, in order; a step of length 0 has no cosines.

        Raises `EngineDied` where a GPU cannot go on.
        """
        with gpu_deaths_told():
            cosines, norms = self.aligner.align(sequences)
        lists = [some if norm else [] for some, norm in zip(cosines.tolist(), norms.tolist(), strict=True)]
        return pa.table(
            {
                "norm": pa.array(norms.numpy(), pa.float64()),
                "cosines": pa.array(lists, pa.list_(pa.float64())),
            }
        )

    def close(self) -> None:
        """Free the model's memory; the measurer cannot be used afterwards."""
        del self.aligner


ROSE = InfluenceKind("rose", pairs=True, adam=True)
LESS = InfluenceKind("less", pairs=False, adam=True)
GRADIENT_COSINE = InfluenceKind("gradient_cosine", pairs=False, adam=False)
