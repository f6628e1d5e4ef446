"""What the record of a run says of how it was made."""

from collections.abc import Sequence
from importlib.metadata import version

import davir_ray
from davir_ray.job.job import Job
from davir_ray.job.measuring import bad_files
from davir_ray.logprobs.choice import library_versions
from davir_ray.measure.measurement import Plan
from davir_ray.runs.record import Counts, EngineUsed, Facts, SkippedFile
from davir_ray.runs.run import Event
from davir_ray.scores import score_digest


def facts(job: Job) -> Facts:
    """What the record says of how the run was made."""
    inputs = job.inputs
    return Facts(
        run_id=job.run.run_id,
        run_dir=job.run.folder,
        davir_ray=davir_ray.__version__,
        ray=version("ray"),
        versions={"pyarrow": version("pyarrow"), **library_versions(job.choice)},
        score=inputs.score.name,
        score_code=score_digest(inputs.recipe.score.name),
        formats=inputs.listing.formats,
        not_read={source: found.columns for source, found in job.not_read.items()},
        models={name: tuple(model.identity for model in some) for name, some in inputs.models.items()},
        target=inputs.target_digest,
        engine=EngineUsed(type=job.choice.type, dtype=job.choice.dtype, reason=job.choice.reason),
        measurements={one.label: one.store.folder for one in job.measurements},
        bad_files=tuple(SkippedFile(path=path, reason=reason) for path, reason in bad_files(job).items()),
    )


def counts(plans: dict[str, Plan], events: Sequence[Event]) -> Counts:
    """By model, how many sequences were measured, and how many the store held when the run was first planned.

    measured_again: how many were begun once more, over all starts of the run, and how many were planned once more since
    the store had lost them. What dies with a driver and with its engines too is counted once.
    """
    missing = {label: _planned(label, events) or [one.missing] for label, one in plans.items()}
    again = {label: sum(later) for label, (_, *later) in missing.items()}
    for event in events:
        if event["event"] in ("measure", "measured") and event.get("role") in again:
            again[event["role"]] += event.get(
                "retried_sequences", 0
            )  # an older version may have begun the run
    return Counts(
        measured={label: first for label, (first, *_) in missing.items()},
        measured_again=again,
        reused={label: one.asked - missing[label][0] for label, one in plans.items()},
    )


def _planned(label: str, events: Sequence[Event]) -> list[int]:
    """Tell how many sequences each new plan of a model had to measure, since the run last had all that it asked for."""
    last = max((index for index, event in enumerate(events) if event["event"] == "select"), default=-1)
    begun = (one for one in events[last + 1 :] if one["event"] == "measure" and one.get("role") == label)
    return [one["sequences"] for one in begun if one.get("anew")]
