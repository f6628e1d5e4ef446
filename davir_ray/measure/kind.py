'''What a kind of measurement is, and the kinds that there are.

A kind says what a part of the store holds of a sequence, and how a model gives it. Chunks, journal, watchdog, store,
look-up, plan, compaction and drift serve every kind. A kind of your own is an object with the members of `Kind`, in any
module that the workers can import; a score that needs it names it `module:attribute`. In `my_kinds.py`:

    from dataclasses import dataclass

    import pyarrow as pa

    from davir_ray.logprobs.choice import build_engine
    from davir_ray.schema import ID, Need, View
    from davir_ray.scores.score import Score

    @dataclass(frozen=True)
    class HardTokens:
        """How many counted tokens of a sequence cost more than 2 nats."""

        name = "hard_tokens"
        implies = ()
        columns = pa.schema([("sequence_id", ID), ("hard", pa.int32())])

        def fingerprint(self):
            return ""  # beside its source nothing decides its numbers

        def check(self, choice):
            """Any engine will do."""

        def open(self, choice, config, model, max_length):
            return Counter(build_engine(choice, config, model, max_length))

        def flaws(self, measured):
            return {}

        def contradicts(self, one, other):
            return one["hard"].to_numpy() != other["hard"].to_numpy()

    @dataclass(frozen=True)
    class Counter:
        engine: object

        def measure(self, sequences):
            hard = [int((one < -2).sum()) for one in self.engine.logprobs(sequences)]
            return pa.table({"hard": pa.array(hard, pa.int32())})

        def close(self):
            self.engine.close()

    HARD = HardTokens()

and a score that uses it:

    NEED = Need("my_kinds:HARD", "base", View.RESPONSE)
    HARDNESS = Score("hardness", "tokens above 2 nats", (NEED,), "none",
                     lambda measured, config: measured.floats(NEED, "hard"))

What some kinds have beside these members is in `ChecksModel`, `Shared`, `Aimed` and `ReadBeside`.
'''

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.config import EngineConfig
from davir_ray.config.by_path import import_by_path, is_as_new, source_of
from davir_ray.errors import RecipeError
from davir_ray.influence.kinds import GRADIENT_COSINE, LESS, ROSE
from davir_ray.influence.projected import PROJECTED_STEP
from davir_ray.influence.target import Target
from davir_ray.logprobs.choice import Choice
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.kinds import LOSS, TOKEN_ENTROPY, TOKEN_LOSS, TOKEN_RANK
from davir_ray.logprobs.representation import REPRESENTATION
from davir_ray.models.resolve import ResolvedModel
from davir_ray.store.measurements import StoredKind


class Measurer(Protocol):
    """A loaded model that measures. Lives in an actor."""

    def measure(self, sequences: Sequence[TokenSequence]) -> pa.Table:
        """Return the columns of the kind but for `sequence_id`, a row a sequence, in order.

        Raises `EngineDied` when it cannot serve further calls; any other exception is about the sequences given.
        """
        ...

    def close(self) -> None:
        """Free the model and its accelerator."""
        ...


class Kind(StoredKind, Protocol):
    """A kind of measurement."""

    @property
    def implies(self) -> tuple[str, ...]:
        """The kinds whose columns it holds too, so that it meets their needs."""
        ...

    def fingerprint(self) -> str:
        """Name the settings that decide its numbers; empty where there are none."""
        ...

    def check(self, choice: Choice) -> None:
        """Check, before an accelerator is claimed, that the chosen engine can measure it. Raises `EngineError`."""
        ...

    def open(self, choice: Choice, config: EngineConfig, model: ResolvedModel, max_length: int) -> Measurer:
        """Load a model in this process. max_length: of the longest sequence. Raises `EngineError`."""
        ...


@runtime_checkable
class ChecksModel(Protocol):
    """What a kind may have beside the members of `Kind`: it cannot be measured under every model."""

    def check_model(self, model: ResolvedModel) -> None:
        """Check, from its files alone, that it can be measured under a model. Raises `ModelError`."""
        ...


class SwitchingMeasurer(Measurer, Protocol):
    """A measurer that can go over to another model."""

    def switch(self, model: ResolvedModel) -> None:
        """Measure under another of the models that it was opened for, from now on.

        Raises `EngineError`, `ModelError`, and `EngineDied` when it can measure under neither any more.
        """
        ...


@runtime_checkable
class Shared(Protocol):
    """What a kind may have beside the members of `Kind`: one process can measure it under several models in turn."""

    def can_switch(
        self, choice: Choice, config: EngineConfig, one: ResolvedModel, other: ResolvedModel
    ) -> bool:
        """Tell whether what measures under one model can be switched to the other, and back."""
        ...

    def open_for(
        self, choice: Choice, config: EngineConfig, models: Sequence[ResolvedModel], max_length: int
    ) -> SwitchingMeasurer:
        """Load the first of some models, of which each can be switched to each other. Raises `EngineError`."""
        ...


@runtime_checkable
class Aimed(Protocol):
    """What a kind may have beside the members of `Kind`: its numbers are about the target's rows."""

    def aimed(self, target: Target) -> Kind:
        """Return the kind that is aimed at a target, which is a part of its fingerprint."""
        ...

    def ground_of(self, choice: Choice, config: EngineConfig, model: ResolvedModel, max_length: int) -> bytes:
        """Compute once what all rows need of the target under a model. Raises `EngineError`, `ModelError`."""
        ...

    def grounded(self, data: bytes) -> Kind:
        """Return the kind with what `ground_of` made. Raises `ValueError` for other data."""
        ...


@runtime_checkable
class ReadBeside(Protocol):
    """What a kind may have beside the members of `Kind`: it is compared with the target where it is read."""

    def beside(
        self, vectors: Mapping[str, NDArray[np.float32]]
    ) -> tuple[pa.Schema, Callable[[pa.Table], pa.Table]]:
        """Return the columns that are read beside a target's vectors by subtask [M, D], and what makes them."""
        ...


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        LOSS,
        TOKEN_LOSS,
        TOKEN_RANK,
        TOKEN_ENTROPY,
        ROSE,
        LESS,
        GRADIENT_COSINE,
        PROJECTED_STEP,
        REPRESENTATION,
    )
}


def resolve_kind(name: str) -> Kind:
    """Return a kind by its name, or a user's by `module:attribute`. Raises `RecipeError`."""
    if name in KINDS:
        return KINDS[name]
    if ":" not in name:
        raise RecipeError(f"kind {name}: expected module:attribute or one of {', '.join(KINDS)}")
    kind: Kind = import_by_path(f"kind {name}", name)
    return kind


def shared(kind: Kind) -> Shared | None:
    """Return a kind that one process can measure under several models in turn; None for others.

    A user's kind that is derived from such a one, and has an `open` of its own, needs an `open_for` of its own too.
    """
    if isinstance(kind, Aimed) or not isinstance(kind, Shared):
        return None
    return kind if is_as_new(type(kind), "open_for", than="open") else None


def kind_identity(name: str, kind: Kind) -> str:
    """Name what a kind computes: its name, the source of a user's, so that an edited one is another kind, its settings.

    kind: as it measures (see `Inputs.kind`).
    """
    return " ".join(filter(None, [_code_identity(name), kind.fingerprint()]))


def _code_identity(name: str) -> str:
    if name in KINDS:
        return name
    return f"{name} {blake2b(source_of(name).encode(), digest_size=16).hexdigest()}"


def known_kind(name: str, identity: str | None) -> Kind:
    """Return the kind that measurements of this name and identity are of, whatever its settings.

    Raises `RecipeError` if it is not known here, or is not what it was when they were made.
    """
    kind = resolve_kind(name)
    if identity is not None and not f"{identity} ".startswith(f"{_code_identity(name)} "):
        raise RecipeError(f"kind {name}: its source has changed since these were measured")
    return kind


def implying(name: str, measured: Iterable[str] = ()) -> tuple[str, ...]:
    """Name the kinds that meet a need for this one: itself, then those that hold it too.

    measured: kinds that may be a user's own, beside KINDS.
    """
    others = dict.fromkeys([*KINDS, *measured])
    return (name, *(other for other in others if name in resolve_kind(other).implies))


def strongest(names: Sequence[str]) -> list[str]:
    """Leave out of some kinds those that others of them imply."""
    implied = {one for name in names for one in resolve_kind(name).implies}
    return [name for name in dict.fromkeys(names) if name not in implied]
