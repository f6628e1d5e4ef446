"""How fast gradients go, found out on a few rows: under a checkpoint, or with a fresh adapter where none is made yet.

A warm-up, the target's gradients and those of the corpus are forward and backward passes over an adapter; one speed
prices them all, but for gradients that are projected: that takes longer than the passes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from davir_ray.cluster.unexpected import stage
from davir_ray.config import LoraConfig
from davir_ray.errors import EngineError, RecipeError
from davir_ray.influence.projected import ProjectedKind
from davir_ray.job import Job
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.measure.chunk_rows import sequences_in
from davir_ray.measure.measurement import Measurement, model_of
from davir_ray.measure.ray_target import in_one_process
from davir_ray.models.resolve import resolve
from davir_ray.planning.estimate import Speed
from davir_ray.progress import say
from davir_ray.schema import View
from davir_ray.scores.score import OF_GRADIENTS

if TYPE_CHECKING:
    from davir_ray.influence.adapted import AdaptedModel
    from davir_ray.influence.moments import Moments

ROWS = 32


@dataclass(frozen=True)
class Probed:
    """How fast a warm-up goes, and how fast rows are measured: the target's and those of the corpus."""

    training: Speed
    measuring: Speed


@stage(EngineError)
def probe(job: Job) -> Probed:
    """Take gradients of some rows under the first model that they are asked of, or with an adapter as it will have.

    Raises `RecipeError` where none are taken.
    """
    passes = [one for one in job.measurements if one.kind.name in OF_GRADIENTS]
    if not passes:
        raise RecipeError(
            f"--probe finds out how fast gradients go, and score {job.inputs.score.name} takes none"
        )
    made = job.inputs.models[passes[0].model][0].adapter_path is not None
    lora = None if made else job.inputs.recipe.warmup.train.lora
    rows = _some_rows(job)
    say(f"probe: the gradients of {len(rows)} rows")
    rates = in_one_process(passes[0], partial(_tokens_per_second, lora=lora, rows=rows))
    return Probed(*(Speed(rate, f"a probe of {len(rows)} rows") for rate in rates))


def _some_rows(job: Job) -> list[TokenSequence]:
    """Read rows from the beginning, the middle and the end of the corpus, as many as a probe takes."""
    found: list[TokenSequence] = []
    for split in range(job.prepared.splits):
        positions = job.prepared.sequences(split, [View.RESPONSE])["position"].to_pylist()
        rows = job.prepared.token_rows(split, positions[:: max(1, len(positions) // ROWS)][:ROWS])
        found += [one for _, one in sequences_in(rows)]
        if len(found) >= ROWS:
            break
    return found[:ROWS]


def _tokens_per_second(
    measurement: Measurement, lora: LoraConfig | None, rows: list[TokenSequence]
) -> tuple[float, float]:
    """Take gradients alone, and as the pass does; each once to warm up and once by the clock.

    lora: a fresh adapter over the base; None where the model is made.
    """
    import torch

    from davir_ray.influence.adapted import load_adapted
    from davir_ray.influence.moments import Moments

    one = measurement
    if lora is None:
        model = load_adapted(model_of(one), one.choice.dtype, one.choice.device)
    else:
        model = _with_fresh_adapter(one, lora)
    zeros = {one.name: torch.zeros_like(one.linear.weight) for one in model.watched}
    moments = Moments(zeros, zeros, 1.0, 1, 1)
    alone = _timed(_aligning(model, moments), rows)
    if not isinstance(one.kind, ProjectedKind):
        return alone, alone
    return alone, _timed(_projecting(model, moments), rows)


def _with_fresh_adapter(measurement: Measurement, lora: LoraConfig) -> "AdaptedModel":
    from peft import get_peft_model

    from davir_ray.influence.adapted import AdaptedModel
    from davir_ray.logprobs.hf.model import load_model
    from davir_ray.train.arguments import peft_config, told_what_fits

    one = measurement
    base = load_model(resolve(one.models.base).model_path, None, one.choice.dtype, one.choice.device)
    with told_what_fits(base, "warmup.train.lora"):
        return AdaptedModel(get_peft_model(base, peft_config(lora)))  # type: ignore[arg-type]


def _aligning(model: "AdaptedModel", moments: "Moments") -> Callable[[list[TokenSequence]], object]:
    """Return what aligns rows with a target of zeros."""
    from davir_ray.influence.directions import Aligner

    return Aligner(model, {name: zero[None] for name, zero in moments.first.items()}, moments).align


def _projecting(model: "AdaptedModel", moments: "Moments") -> Callable[[list[TokenSequence]], object]:
    from davir_ray.influence.projector import Projector

    return Projector(model, moments).project


def _timed(work: Callable[[list[TokenSequence]], object], rows: list[TokenSequence]) -> float:
    """Return how many tokens a second are worked on."""
    work(rows[:1])
    started = monotonic()
    work(rows)
    return sum(len(row.ids) for row in rows) / (monotonic() - started)
