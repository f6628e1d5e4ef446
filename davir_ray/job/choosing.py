"""The stage that applies the selection rules and writes the scored table and the core-set."""

from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa

from davir_ray import storage
from davir_ray.cluster.ray_metrics import publish
from davir_ray.cluster.unexpected import stage
from davir_ray.coreset.cut_noise import Rounding
from davir_ray.coreset.export import Template
from davir_ray.coreset.export_plan import Export
from davir_ray.coreset.ray_export import write_coreset, write_scored
from davir_ray.coreset.ray_rank import Ranked
from davir_ray.coreset.rules.choose import choose, rule_names
from davir_ray.coreset.summary import Summary, summarise
from davir_ray.errors import DavirError
from davir_ray.job.job import Job
from davir_ray.runs.record import Chosen
from davir_ray.runs.run import Run


@stage(DavirError)
def select_and_export(job: Job, ranked: Ranked) -> Chosen:
    """Apply the selection rules, write the scored table and the core-set, and sum them up."""
    inputs, run = job.inputs, job.run
    job.run.event("select", ranked=ranked.ranked)
    few_shot = inputs.few_shot if inputs.score.parts is not None else None
    subtasks = [one.name for one in few_shot.target.subtasks] if few_shot is not None else []
    selections = choose([rule.over(subtasks) for rule in inputs.recipe.select], ranked.scan)
    export = Export(
        corpus=inputs.recipe.corpus,
        formats=inputs.listing.formats,
        splits=inputs.listing.splits,
        config=inputs.recipe.export,
        run_dir=run.folder,
        template=Template(inputs.recipe.tokens.chat_template_kwargs, inputs.tokenizer.call_forms()),
    )
    counts = write_scored(ranked, selections, rule_names(inputs.recipe.select), export)
    storage.await_files(run.paths.scored, len(selections))
    rounding = Rounding(inputs.score, inputs.recipe.score, job.choice.dtype)
    scan = partial(scan_folder, run.paths.scored)
    summary = summarise(scan, inputs.recipe.select, rounding=rounding, subtasks=subtasks)
    folders = write_coreset(export, ranked, selections, counts)
    _note_chosen(run, summary)
    return Chosen(**dict(summary), scored=run.paths.scored, coreset=folders)


def _note_chosen(run: Run, summary: Summary) -> None:
    """Tell what became of the rows."""
    run.event("chosen", rows=summary.status, selected=summary.selected)
    for status, rows in summary.status.items():
        publish(run.run_id, status, {"rows": rows})


def scan_folder(folder: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Read some columns of the parts of a table, in order."""
    for uri in storage.list_files(folder, ".parquet"):
        yield storage.read_table(uri, list(columns))
