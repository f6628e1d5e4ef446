"""The kind `representation`: a sequence as a vector, as RDS+ takes it (arXiv 2503.01807), and its loss from one pass.

The vector is the mean over all positions of the sequence, with the weights 1 to T, of the last hidden states: those
after the final norm, which the head reads. It is not normalised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.config import EngineConfig
from davir_ray.errors import EngineError
from davir_ray.logprobs.choice import Choice
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.kinds import LOSS, SUMS, loss_of
from davir_ray.models.resolve import ResolvedModel

if TYPE_CHECKING:
    from davir_ray.logprobs.hf.engine import TransformersEngine

APART = 0.01
"""How far the cosine of two vectors of a sequence may be below 1: two runs at once may measure it in different batches,
which round differently in bfloat16. Another model is further away."""
VECTOR = pa.list_(pa.float32())


@dataclass(frozen=True)
class RepresentationKind:
    """A kind of measurement: the loss, and the vector. See `measure.kind.Kind`."""

    name: str = "representation"
    implies: tuple[str, ...] = ("loss",)

    @property
    def columns(self) -> pa.Schema:
        """The columns of a part."""
        return pa.schema([pa.field(name, type, nullable=False) for name, type in [*SUMS, ("vector", VECTOR)]])

    def fingerprint(self) -> str:
        """Return nothing: it has no settings."""
        return ""

    def check(self, choice: Choice) -> None:
        """Check that the chosen engine gives hidden states. Raises `EngineError`."""
        if choice.type != "transformers":
            raise EngineError(
                f"engine.type: {choice.type} gives no hidden states, which {self.name} is made of; "
                "set it to transformers"
            )

    def open(
        self, choice: Choice, config: EngineConfig, model: ResolvedModel, max_length: int
    ) -> "RepresentationMeasurer":
        """Load the model in this process. Raises `EngineError`, `ModelError`."""
        self.check(choice)
        from davir_ray.logprobs.hf.engine import TransformersEngine

        engine = TransformersEngine(
            model.model_path, adapter_path=model.adapter_path, dtype=choice.dtype, device=choice.device
        )
        return RepresentationMeasurer(self, engine)

    def flaws(self, measured: pa.Table) -> dict[int, str]:
        """Return row -> what no measurement has: a loss that is none, no vector, or one with values that are none."""
        lists = measured["vector"].combine_chunks()
        lengths = np.asarray(lists.value_lengths())
        found = {index: "no vector" for index in np.flatnonzero(lengths == 0).tolist()}
        odd = ~np.isfinite(np.asarray(lists.flatten()))
        owners = np.repeat(np.arange(len(measured)), lengths)
        found |= {index: "a vector with values that are none" for index in np.unique(owners[odd]).tolist()}
        return found | LOSS.flaws(measured)

    def contradicts(self, one: pa.Table, other: pa.Table) -> NDArray[np.bool_]:
        """Tell where two measurements of a sequence cannot both be true; the rows of both tables go together."""
        ours, theirs = _vectors(one), _vectors(other)
        if ours.shape != theirs.shape:
            return np.ones(len(one), dtype=bool)
        sizes = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        return np.asarray((ours * theirs).sum(axis=1) < (1 - APART) * sizes) | LOSS.contradicts(one, other)


def _vectors(table: pa.Table) -> NDArray[np.float64]:
    """Return the vectors of some measurements of one model [N, hidden]."""
    flat = np.asarray(table["vector"].combine_chunks().flatten(), dtype=np.float64)
    return flat.reshape(len(table), -1) if len(table) else flat.reshape(0, 0)


@dataclass(frozen=True)
class RepresentationMeasurer:
    """A model whose hidden states become rows."""

    kind: RepresentationKind
    engine: "TransformersEngine"

    def measure(self, sequences: Sequence[TokenSequence]) -> pa.Table:
        """Return the columns of the kind but for `sequence_id`, a row a sequence, in order."""
        found = self.engine.represented(sequences)
        columns = [
            pa.array([loss_of(one.logprobs) for one in found], pa.float64()),
            pa.array([len(one.logprobs) for one in found], pa.int32()),
            pa.array([one.vector for one in found], VECTOR),
        ]
        return pa.table(columns, schema=self.kind.columns.remove(0))

    def close(self) -> None:
        """Free the model."""
        self.engine.close()


REPRESENTATION = RepresentationKind()
