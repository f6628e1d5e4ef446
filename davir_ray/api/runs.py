"""A finished run as an object, and the functions that come to one."""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import unquote

import pyarrow as pa

from davir_ray import storage
from davir_ray.api.given import Given, Place, load, place
from davir_ray.cluster.unexpected import stage
from davir_ray.errors import BrokenEnvironment, DavirError, RecipeError
from davir_ray.recipe import Recipe
from davir_ray.recipe.loading import Overrides
from davir_ray.runs.record import JobRecord, RunRecord
from davir_ray.runs.run import finished_run
from davir_ray.storage.layout import RunLayout

if TYPE_CHECKING:
    from datasets import Dataset

Export = Literal["parquet", "jsonl", "messages", "trl", "trl_frozen", "trl_reward", "llama_factory"]
"""Formats of `export.formats` that hold rows."""
Rules = Sequence[Mapping[str, Any]] | Mapping[str, Any]
"""What a recipe has under `select`: a list of rules, or one alone, such as `{"type": "count", "count": 100}`."""


@dataclass(frozen=True)
class Run:
    """A run that is finished: its record, its scored table and its core-set.

    folder: a path or an fsspec URI. record: of a run that was just made what this start did, of one that was opened
    what `record.json` holds.
    """

    folder: str
    record: RunRecord

    @classmethod
    @stage(DavirError)
    def open(cls, folder: Place) -> "Run":
        """Open the finished run in a folder: a path, or an fsspec URI. Raises `RecipeError` where there is none."""
        run, record = finished_run(place(folder))
        return cls(run.folder, record)

    @stage(DavirError)
    def scored(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the scored table: every row of the corpus once, those with a rank first, by rank.

        columns: only these; docs/results.md tells what each holds. `.to_pandas()` of the table and
        `polars.from_arrow(table)` make a data frame of it. Raises `RecipeError` for a column that is not there.
        """
        parts = storage.list_files(RunLayout(self.folder).scored, ".parquet")
        known = storage.read_table(parts[0]).column_names
        if unknown := [name for name in columns or () if name not in known]:
            has = ", ".join(known)
            raise RecipeError(f"{self.folder}: its scored table has no column {unknown[0]}; it has {has}")
        asked = known if columns is None else list(columns)
        return pa.concat_tables([storage.read_table(uri, asked) for uri in parts]).unify_dictionaries()

    @stage(DavirError)
    def coreset(self, format: Export = "parquet", source: str | None = None) -> "Dataset":
        """Return the chosen rows, best first, as a `datasets.Dataset` that lies on disk and not in memory.

        format: `parquet`, the corpus's own columns with `davir_score` and `davir_rank` behind them, or another one that
        the recipe exports, such as `trl` for TRL's trainers. source: which of several sources of the corpus, whose
        columns may differ; not asked for where there is one. Raises `RecipeError` for a format that was not exported
        and for a source that is not there or not told, and `BrokenEnvironment` where `datasets` is not installed.
        """
        files = self._coreset_files(format, source)
        try:
            import datasets
        except ImportError as error:
            raise BrokenEnvironment(
                f"the core-set is a Dataset of the package datasets, which cannot be imported ({error}); "
                "pip install 'davir-ray[train]' brings it"
            ) from error
        kind = "parquet" if format == "parquet" else "json"
        if not (filled := [uri for uri in files if _has_rows(uri)]):  # `load_dataset` fails where no row is
            return datasets.Dataset(storage.read_table(files[0]) if kind == "parquet" else pa.table({}))
        names = list(map(glob.escape, filled))  # it takes them for patterns
        return datasets.load_dataset(kind, data_files=names, split="train")

    def _coreset_files(self, format: str, source: str | None) -> list[str]:
        """List the files of the core-set in one format and of one source."""
        if format not in get_args(Export):
            raise RecipeError(f"format {format} holds no rows; those that do: {', '.join(get_args(Export))}")
        if format not in self.record.coreset:
            raise RecipeError(f"{self.folder}: {self._why_absent(format)}")
        folder = self._coreset_folder(RunLayout(self.folder).export(format), source)
        return storage.list_files(folder, ".parquet" if format == "parquet" else ".jsonl")

    def _why_absent(self, format: str) -> str:
        has = ", ".join(self.record.coreset)
        asked = [name for name in self.record.coreset if name != "scores"]  # that comes with jsonl, unasked
        formats = f"export.formats=[{', '.join([*asked, format])}]"
        again = f"davir select {quote(self.folder)} --set {quote(formats)}"
        return f"has no core-set in format {format}; it has {has or 'none'}; `{again}` makes a run that has"

    def _coreset_folder(self, folder: str, source: str | None) -> str:
        """Return the folder of one source. Raises `RecipeError` if it is not there, or not told."""
        folders = {unquote(one.rsplit("/", 1)[-1]): one for one in storage.list_folders(folder)}
        if source is None and len(folders) <= 1:
            return next(iter(folders.values()), folder)
        if source in folders:
            return folders[source]
        names = ", ".join(folders) or "one alone"
        asked = f"has no source {source}" if source is not None else "has a core-set of several sources"
        raise RecipeError(f"{self.folder}: {asked}; say which with source=: {names}")

    def select(self, rules: Rules | None = None, *, overrides: Mapping[str, Any] | None = None) -> "Run":
        """Choose again from what was measured, in seconds and without a model; return another run.

        rules: in place of the recipe's `select`. overrides: further settings, such as `{"score.name": "rho_mean"}`.
        Raises `NotMeasured` where they ask for what was not measured.
        """
        chosen = {} if rules is None else {"select": rules}
        return select(self.folder, overrides={**chosen, **(overrides or {})})

    @stage(DavirError)
    def report(self, out: Place | None = None) -> str:
        """Write the run's page (docs/report.md), into its folder or as the file `out`; return where it is."""
        from davir_ray.report.page import write_report

        return write_report(self.folder, None if out is None else place(out))


def _has_rows(uri: str) -> bool:
    """Tell whether a file of a core-set has any; a part may have none of a format that leaves rows out."""
    return bool(storage.read_footer(uri)[0] if uri.endswith(".parquet") else storage.size_of(uri))


@dataclass(frozen=True)
class JobRun(Run):
    """What `run` came to: a run, with the trainings before and after it in its record."""

    record: JobRecord


@stage(DavirError)
def score(recipe: Given, *, overrides: Overrides = (), name: str | None = None) -> Run:
    """Measure what the store lacks, score, rank, select and export: what `davir score` does.

    A run that is finished is not done again. It joins the Ray cluster of RAY_ADDRESS, or starts Ray on this machine.

    recipe: the path of a YAML file, a run's folder, plain data or a `Recipe`. overrides: `{"corpus.limit": 100}`, or
    texts as `--set` takes them. name: what the run's folder is called before its hash; the file's name by default.
    Raises a `DavirError` of davir_ray.errors. A run that could choose nothing is returned: look at `record.selected`.
    """
    loaded = load(recipe, overrides, name)  # before the heavy imports: a typo is told at once
    from davir_ray import pipeline

    return _run(pipeline.score(*_with_models(*loaded)))


@stage(DavirError)
def select(recipe: Given, *, overrides: Overrides = (), name: str | None = None) -> Run:
    """Choose again from stored measurements without a model, as `davir select` does; arguments as for `score`.

    Raises `NotMeasured` where the store lacks a measurement.
    """
    loaded = load(recipe, overrides, name)
    from davir_ray import pipeline

    return _run(pipeline.score(*_with_models(*loaded), may_measure=False))


@stage(DavirError)
def run(recipe: Given, *, overrides: Overrides = (), name: str | None = None) -> JobRun:
    """Make the reference, score, select and train, as far as the recipe asks: what `davir run` does.

    Arguments as for `score`. The model that was trained is `record.train.model`, a folder.
    """
    loaded = load(recipe, overrides, name)
    from davir_ray import pipeline

    record = pipeline.run_all(*loaded)
    return JobRun(record.run_dir, record)


def _run(record: RunRecord) -> Run:
    return Run(record.run_dir, record)


def _with_models(recipe: Recipe, name: str) -> tuple[Recipe, str]:
    """Name the models that the recipe made; only where there are some is training code loaded."""
    if not recipe.makes:
        return recipe, name
    from davir_ray.train.steps import with_models

    return with_models(recipe, name), name
