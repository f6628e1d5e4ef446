"""What a score has to know of the target, beside what was measured of the corpus."""

from collections.abc import Callable, Sequence

from davir_ray.errors import ModelError
from davir_ray.influence.moments import learning_rate_of
from davir_ray.measure.measurement import Measurement
from davir_ray.measure.ray_target import Vectors, target_vectors
from davir_ray.models.resolve import ResolvedModel
from davir_ray.scores.score import TargetMeasured
from davir_ray.target.rows import FewShot


def measured_target(
    few_shot: FewShot,
    checkpoints: Sequence[ResolvedModel],
    of_target: Sequence[Measurement],
    *,
    may_measure: bool,
    note: Callable[[str, float], None],
) -> TargetMeasured:
    """Return the names of the subtasks, the weights of the checkpoints, and the vectors of the target's rows.

    checkpoints: those of a warm-up that the score measures under; each weighs as the mean learning rate of its epoch.
    of_target: the passes whose kind also measures the target's rows. note: told the label of a pass and the seconds
    that the target's rows took.
    """
    vectors: dict[str, Vectors] = {}
    for one in of_target:
        vectors[one.model], seconds = target_vectors(one, few_shot.target, may_measure=may_measure)
        if seconds:
            note(one.label, seconds)
    return TargetMeasured(
        subtasks=tuple(one.name for one in few_shot.target.subtasks),
        weights=_weights(checkpoints),
        vectors=vectors,
    )


def _weights(checkpoints: Sequence[ResolvedModel]) -> tuple[float, ...]:
    """Return the mean learning rates of the checkpoints' epochs. Raises `ModelError` where they give no weights."""
    for one in checkpoints:
        if one.adapter_path is None:
            doubt = (
                one.doubt or f"models.warmup: the checkpoint {one.identity} is known by its identity alone"
            )
            raise ModelError(
                f"{doubt}; how much it weighs (the mean learning rate of its epoch) is in its folder alone: name that"
            )
    weights = tuple(learning_rate_of(str(one.adapter_path)) for one in checkpoints)
    if checkpoints and not sum(weights) > 0:
        raise ModelError(
            f"{checkpoints[0].adapter_path}: the learning rates of the warm-up are 0; give it more steps, or fewer "
            "warmup_steps"
        )
    return weights
