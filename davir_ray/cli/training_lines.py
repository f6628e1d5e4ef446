"""What `davir reference`, `davir train` and `davir run` end with: records as lines of text."""

from collections.abc import Iterator

from davir_ray.cli.closing_lines import record_lines
from davir_ray.cli.figures import as_written
from davir_ray.runs.record import JobRecord, ReferenceRecord, TrainingRecord

SHOWN = {
    "loss": "loss",
    "mean_token_accuracy": "token accuracy",
    "rewards/accuracies": "preference accuracy",
    "rewards/margins": "preference margin",
}
"""Metrics of held-out rows that are shown; all of them are in metrics.jsonl."""


def training_lines(record: TrainingRecord) -> Iterator[str]:
    """Tell what was trained on what, and what it did to held-out rows."""
    yield f"training  {record.run_id}  ({record.seconds} s)"
    yield f"trained   {record.objective} on {record.trained_on}: {record.rows:,} rows, {record.steps} steps"
    known = ((name, value) for name, value in record.settings if value is not None)
    yield f"settings  {', '.join(f'{name} {as_written(value)}' for name, value in known)}"
    if record.frozen_logps:
        yield f"frozen    log-probabilities from the {record.frozen_logps}"
    if (both := record.overlaps) is not None and both.same + both.near:
        yield f"target    {both.same:,} of the held-out rows are rows of the target, {both.near:,} nearly"
    before, after = record.eval.before, record.eval.after
    for name, title in SHOWN.items():
        if name in before and name in after:
            yield f"held out  {title:<20}{before[name]:>10.4f} before  {after[name]:>10.4f} after"
    yield f"metrics   {record.metrics}"
    yield f"model     {record.model}"


def reference_lines(record: ReferenceRecord) -> Iterator[str]:
    """Tell of each reference."""
    for training in record.trainings:
        yield from training_lines(training)


def run_lines(record: JobRecord) -> Iterator[str]:
    """Tell of the reference, the core-set and the model."""
    if record.reference is not None:
        yield from reference_lines(record.reference)
    yield from record_lines(record)
    if record.train is not None:
        yield from training_lines(record.train)
