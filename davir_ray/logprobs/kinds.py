"""The kinds of measurement that are read off a model's next-token distributions.

    loss            the summed loss of the counted tokens
    token_loss      and the loss of each
    token_rank      and the rank of each among all tokens, clipped
    token_entropy   and the entropy of the distribution that each was taken from

Each holds what those above it hold, so it meets their needs too. The sum is taken in float64 from the engine's numbers,
whatever else is kept: it is the truth for sums, and the same under each kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from davir_ray.config import EngineConfig
from davir_ray.logprobs import switching
from davir_ray.logprobs.choice import Choice, build_engine, check_values
from davir_ray.logprobs.engine import (
    MOST_RANK,
    Engine,
    SwitchingEngine,
    TokenEngine,
    TokenSequence,
    TokenValue,
)
from davir_ray.models.resolve import ResolvedModel
from davir_ray.schema import ID

ROUNDING = 1e-3
"""Nats a token by which a sum of log-probabilities may be above 0."""
APART = 0.05
"""How far two losses of a sequence may be apart, in nats a token: two runs at once may measure it in different
batches, which round differently in bfloat16. Another model is further away."""

SUMS = [("sequence_id", ID), ("loss", pa.float64()), ("num_tokens", pa.int32())]
OF_TOKENS = {"losses": pa.float32(), "ranks": pa.uint8(), "entropies": pa.float32()}
"""Columns with a value for each counted token: nats; min(rank, 100), where 1 is the likeliest token; nats."""


@dataclass(frozen=True)
class LossKind:
    """A kind of measurement: the loss, and some columns of OF_TOKENS. See `measure.kind.Kind`."""

    name: str
    implies: tuple[str, ...] = ()
    of_tokens: tuple[str, ...] = ()

    @property
    def columns(self) -> pa.Schema:
        """The columns of a part."""
        lists = [(name, pa.list_(OF_TOKENS[name])) for name in self.of_tokens]
        return pa.schema([pa.field(name, type, nullable=False) for name, type in [*SUMS, *lists]])

    @property
    def asks(self) -> frozenset[TokenValue]:
        """What an engine is asked for beside log-probabilities."""
        asked: dict[str, TokenValue] = {"ranks": "rank", "entropies": "entropy"}
        return frozenset(asked[name] for name in self.of_tokens if name in asked)

    def fingerprint(self) -> str:
        """Return nothing: it has no settings."""
        return ""

    def check(self, choice: Choice) -> None:
        """Check that the chosen engine can give all of it. Raises `EngineError`."""
        check_values(choice, self.asks)

    def open(
        self, choice: Choice, config: EngineConfig, model: ResolvedModel, max_length: int
    ) -> "LossMeasurer":
        """Load the engine in this process. Raises `EngineError`."""
        return self.open_for(choice, config, [model], max_length)

    def can_switch(
        self, choice: Choice, config: EngineConfig, one: ResolvedModel, other: ResolvedModel
    ) -> bool:
        """Tell whether an engine of one model can be switched to the other, and back."""
        return switching.can_switch(choice, config, one, other)

    def open_for(
        self, choice: Choice, config: EngineConfig, models: Sequence[ResolvedModel], max_length: int
    ) -> "LossMeasurer":
        """Load the engine of the first model in this process; the others may follow. Raises `EngineError`."""
        first, *others = models
        return LossMeasurer(self, build_engine(choice, config, first, max_length, others))

    def flaws(self, measured: pa.Table) -> dict[int, str]:
        """Return row -> what no measurement has: a loss that is not finite or negative, or not one value a token."""
        loss, num_tokens = measured["loss"].to_numpy(), measured["num_tokens"].to_numpy()
        found: dict[int, str] = {}
        for name in self.of_tokens:
            lengths = np.diff(measured[name].combine_chunks().offsets.to_numpy())
            odd = np.flatnonzero(lengths != num_tokens).tolist()
            found |= {index: f"{lengths[index]} {name} of {num_tokens[index]} tokens" for index in odd}
        if not found:
            found = self._false_values(measured)
        found |= {index: "no token that counts" for index in np.flatnonzero(num_tokens <= 0).tolist()}
        wrong = ~(np.isfinite(loss) & (loss >= 0))
        return found | {index: f"a loss of {loss[index]}" for index in np.flatnonzero(wrong).tolist()}

    def _false_values(self, measured: pa.Table) -> dict[int, str]:
        """Return row -> what no token has; of rows that have a value for each of their tokens."""
        owners = np.repeat(np.arange(len(measured)), measured["num_tokens"].to_numpy())
        found: dict[int, str] = {}
        for name in self.of_tokens:
            values = measured[name].combine_chunks().flatten().to_numpy()
            wrong = ~((values >= 1) & (values <= MOST_RANK)) if name == "ranks" else ~np.isfinite(values)
            found |= {index: f"{name} that are none" for index in owners[wrong].tolist()}
            if name == "losses" and not found:
                sums = np.bincount(owners, weights=values, minlength=len(measured))
                apart = np.abs(sums - measured["loss"].to_numpy()) > ROUNDING * np.bincount(
                    owners, minlength=len(measured)
                )
                found = {
                    index: "losses that add up to another sum" for index in np.flatnonzero(apart).tolist()
                }
        return found

    def contradicts(self, one: pa.Table, other: pa.Table) -> NDArray[np.bool_]:
        """Tell where two measurements of a sequence cannot both be true; the rows of both tables go together."""
        tokens = one["num_tokens"].to_numpy()
        apart = np.abs(other["loss"].to_numpy() - one["loss"].to_numpy())
        return np.asarray((apart > APART * tokens) | (tokens != other["num_tokens"].to_numpy()))


@dataclass(frozen=True)
class LossMeasurer:
    """An engine whose numbers become rows of a kind."""

    kind: LossKind
    engine: Engine

    def measure(self, sequences: Sequence[TokenSequence]) -> pa.Table:
        """Return the columns of the kind but for `sequence_id`, a row a sequence, in order."""
        columns: dict[str, Any] = {name: None for name in self.kind.of_tokens}
        if self.kind.asks:
            values = cast(TokenEngine, self.engine).token_values(sequences, self.kind.asks)
            logprobs = [one.logprobs for one in values]
            columns |= {"ranks": [one.rank for one in values], "entropies": [one.entropy for one in values]}
        else:
            logprobs = self.engine.logprobs(sequences)
        # From 0, so that a probability of 1 has a loss of 0 and not of -0.
        columns["losses"] = [0 - one for one in logprobs]
        lists = [_lists(columns[name], OF_TOKENS[name]) for name in self.kind.of_tokens]
        sums = [pa.array([loss_of(one) for one in logprobs], pa.float64())]
        counts = [pa.array([len(one) for one in logprobs], pa.int32())]
        return pa.table([*sums, *counts, *lists], schema=self.kind.columns.remove(0))

    def switch(self, model: ResolvedModel) -> None:
        """Measure under another model from now on."""
        cast(SwitchingEngine, self.engine).switch(model)

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()


def _lists(values: Sequence[NDArray[Any]], type: pa.DataType) -> pa.ListArray:
    offsets = np.cumsum([0, *(len(one) for one in values)], dtype=np.int32)
    flat = np.concatenate(values) if len(values) else np.empty(0)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, type))


def loss_of(logprobs: NDArray[np.float32]) -> float:
    """Return the loss of a sequence in nats; a probability of 1 may have been rounded to a little more."""
    loss = -float(logprobs.sum(dtype=np.float64))
    return 0.0 if -ROUNDING * len(logprobs) < loss < 0 else loss


LOSS = LossKind("loss")
TOKEN_LOSS = LossKind("token_loss", ("loss",), ("losses",))
TOKEN_RANK = LossKind("token_rank", ("loss", "token_loss"), ("losses", "ranks"))
TOKEN_ENTROPY = LossKind(
    "token_entropy", ("loss", "token_loss", "token_rank"), ("losses", "ranks", "entropies")
)
