"""The stage that scores every row and puts all rows in order, with what the score knows of the target."""

from typing import Any

import pyarrow as pa

from davir_ray import storage
from davir_ray.cluster.ray_exchange import gather
from davir_ray.cluster.unexpected import stage
from davir_ray.coreset.ray_rank import Ranked, Ranking, rank
from davir_ray.coreset.rules.choose import token_columns
from davir_ray.errors import DavirError, StoreError
from davir_ray.inputs import Inputs
from davir_ray.job.job import Job, stores_of, with_folds
from davir_ray.measure.kind import ReadBeside, resolve_kind
from davir_ray.models.resolve import ResolvedModel
from davir_ray.schema import role_of
from davir_ray.scores.score import OF_GRADIENTS, TargetMeasured
from davir_ray.store.ray_lookup import align, look_up
from davir_ray.target.ray_measured import measured_target

KNOWN = ("sequence_id", "num_tokens")
"""Columns of measurements that the prepared corpus has too."""


def aim(job: Job, may_measure: bool) -> TargetMeasured | None:
    """Find out what the score has to know of the target; None where it does not ask."""
    inputs = job.inputs
    if inputs.few_shot is None or not inputs.score.reads_target:
        return None
    of_target = {need[:2] for need in inputs.score.of_target}
    return measured_target(
        inputs.few_shot,
        _checkpoints(inputs),
        [one for one in job.measurements if (one.kind.name, role_of(one.model)) in of_target],
        may_measure=may_measure,
        note=lambda label, seconds: job.run.event("target", role=label, seconds=round(seconds, 1)),
    )


def _checkpoints(inputs: Inputs) -> list[ResolvedModel]:
    """Return the models under which gradients were taken, in order."""
    asked = dict.fromkeys(need.model for need in inputs.needs if need.kind in OF_GRADIENTS)
    return [one for name in asked for one in inputs.models[name]]


@stage(DavirError)
def rank_corpus(job: Job, target: TargetMeasured | None) -> Ranked:
    """Score every row, and put all rows in the order of their scores."""
    inputs, rows = job.inputs, job.prepared.count_rows()
    paths = job.run.paths
    for folder in (paths.ranked, paths.scored, paths.unscored, paths.coreset, paths.exports):
        storage.delete(folder)  # of an attempt that was stopped
    job.run.event("rank", rows=sum(rows))
    asked = list(dict.fromkeys((need.kind, need.model) for need in inputs.needs))
    found = {one: look_up_need(job, *one, target) for one in asked}
    ranking = Ranking(
        prepared=job.prepared,
        needs=inputs.needs,
        score=inputs.score,
        config=inputs.recipe.score,
        target=target,
        token_columns=token_columns(inputs.recipe.select),
        failed={
            (kind, model): {
                key: why for one in job.measurements_of(model) for key, why in one.failed().items()
            }
            for kind, model in asked
        },
        files=tuple(split.path for split in inputs.listing.splits),
    )
    return rank(ranking, found, rows, paths.ranked)


@stage(StoreError)
def look_up_need(job: Job, kind: str, model: str, target: TargetMeasured | None = None) -> list[Any]:
    """Look up what one model measured of a kind, or the references of all folds; a FOUND table a split.

    target: what stored steps are compared with where they are read.
    """
    views = tuple(dict.fromkeys(need.view for need in job.inputs.needs if need[:2] == (kind, model)))
    columns, as_read = _columns(kind), None
    if target is not None and isinstance(read := resolve_kind(kind), ReadBeside):
        columns, as_read = read.beside(target.vectors[model])
    folds = [
        look_up(job.prepared, views, stores_of(job, kind, one), columns, fold, as_read)
        for one, fold in with_folds(job.inputs.models[model])
    ]
    return folds[0] if len(folds) == 1 else gather(folds, align)


def _columns(kind: str) -> pa.Schema:
    """Return the columns that are looked up of a kind: the number that orders measurements, and what is not known."""
    number, *others = list(resolve_kind(kind).columns)[1:]
    return pa.schema([number, *(field for field in others if field.name not in KNOWN)])
