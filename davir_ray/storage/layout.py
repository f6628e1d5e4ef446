"""Every path of a store and of a folder of runs is named here, and nowhere else.

<store>/
  measurements/<fingerprint>/           one model under one numerics
    model.json                          what the fingerprint stands for
    <part>.parquet                      sequences that are measured
    merged/<part>.parquet               many parts in one, with their names
    failed/<part>.parquet               sequences that cannot be measured
    directions.safetensors              where the target's gradients point, for kinds that are aimed at it
    targets/<target>.parquet            what was measured of a target's own rows
    last-use.txt                        the run that asked last; its age is how long nobody has
  prepared/<digest of the settings>/    corpora tokenised in one way
    examples/<part>.parquet             a split's rows
    tokens/<part>.parquet               and their sequences
    bad/<part>.txt                      why a split cannot be read to its end
    used/<digest of the corpus>.txt     the parts that a corpus has here
    overlaps/<digest of both>.json      what a corpus has of a target's rows

<output>/
  <run_id>/                             a run that scores
    recipe.json  events.jsonl           what it was asked, what happened
    lease/00000001.json ...             who works on it
    places.json                         where each row of its corpus was
    work/<pass>/                        while it measures: one model, or a fold's reference
      plan.parquet                      the chunks to measure
      chunks/00000.parquet              the rows of each chunk of a split
      journal/<chunk>.json              how far a chunk is that an engine has begun
    ranked/00000.parquet                while it ranks: all rows in order,
    ranked/scored/  ranked/marked/     and the two steps on the way there
    scored/00000.parquet                every row with its score and rank
    unscored/00000.jsonl                the rows without one, with the reason
    coreset/part-00000.parquet          the chosen rows; of several sources, coreset/<source>/
    exports/<format>/part-00000.*       likewise in other formats
    drift.json                          a night's: what has changed since the night before
    report.html                         the run as a page
    record.json                         written last
  <run_id>/                             a training; events, lease and record as above
    training.json                       its recipe
    work-rows/  work-eval_rows/         while it measures the frozen policy
    rows/  eval_rows/  checkpoints/     while it trains
    epochs/1                            of a warm-up: the adapter after each epoch, and the optimiser's moments
    metrics.jsonl                       what it logged
    model/  model/davir_training.json   its result, and what made it
  nightly/<recipe>/nights.jsonl         a line a night
  nightly/<recipe>/lease/               who works on it
"""

from dataclasses import dataclass
from uuid import uuid4

from davir_ray.storage.files import join


class Below:
    """A name in a folder: of a layout, `layout.name` is the path; of its class, the bare name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, layout: "Layout | None", owner: type) -> str:
        """Return the path, or the name."""
        return self.name if layout is None else join(layout.folder, self.name)


@dataclass(frozen=True)
class Layout:
    """The paths in one folder, which is a URI."""

    folder: str


class StoreLayout(Layout):
    """The paths of a store."""

    measurements = Below("measurements")
    prepared = Below("prepared")

    def measurements_of(self, fingerprint: str) -> str:
        """Name the folder of the measurements of one kind and model."""
        return join(self.measurements, fingerprint)

    def prepared_with(self, digest: str) -> str:
        """Name the folder of the corpora that were tokenised with some settings."""
        return join(self.prepared, digest)


class MeasurementsLayout(Layout):
    """The paths of one model's measurements."""

    description = Below("model.json")
    merged = Below("merged")
    failed = Below("failed")
    last_use = Below("last-use.txt")
    directions = Below("directions.safetensors")

    def of_target(self, target: str) -> str:
        """Name the file of what was measured of a target's own rows."""
        return join(self.folder, "targets", f"{target}.parquet")

    def part(self, name: str) -> str:
        """Name a part as it was measured."""
        return join(self.folder, f"{name}.parquet")

    def merged_part(self, name: str) -> str:
        """Name a part that a compaction made."""
        return join(self.merged, f"{name}.parquet")

    def failed_part(self, name: str) -> str:
        """Name the list of what cannot be measured of the chunk that would have become part `name`."""
        return join(self.failed, f"{name}.parquet")


class PreparedLayout(Layout):
    """The paths of the corpora that were tokenised with some settings. Tables: `examples` and `tokens`."""

    bad = Below("bad")
    used = Below("used")

    def table(self, table: str) -> str:
        """Name the folder of a table."""
        return join(self.folder, table)

    def part(self, table: str, name: str) -> str:
        """Name a split's part of a table."""
        return join(self.folder, table, f"{name}.parquet")

    def bad_part(self, name: str) -> str:
        """Name the file that says why a split cannot be read."""
        return join(self.bad, f"{name}.txt")

    def overlaps_with(self, both: str) -> str:
        """Name the file of what a corpus has of a target's rows. both: names the two."""
        return join(self.folder, "overlaps", f"{both}.json")

    def used_by(self, corpus: str) -> str:
        """Name the list of the parts that a corpus has."""
        return join(self.used, f"{corpus}.txt")


class OutputLayout(Layout):
    """The paths of a folder of runs."""

    nightly = Below("nightly")

    def run(self, run_id: str) -> str:
        """Name the folder of a run or of a training."""
        return join(self.folder, run_id)

    def nights(self, recipe: str) -> str:
        """Name the folder of a recipe's nights."""
        return join(self.nightly, recipe)


class NightsLayout(Layout):
    """The paths of a recipe's nights."""

    lines = Below("nights.jsonl")
    lease = Below("lease")


class RunLayout(Layout):
    """The paths of a run that scores, and of a training."""

    recipe = Below("recipe.json")
    training = Below("training.json")
    events = Below("events.jsonl")
    lease = Below("lease")
    places = Below("places.json")
    work = Below("work")
    work_of_rows = Below("work-rows")
    work_of_eval_rows = Below("work-eval_rows")
    ranked = Below("ranked")
    scored = Below("scored")
    unscored = Below("unscored")
    coreset = Below("coreset")
    exports = Below("exports")
    drift = Below("drift.json")
    report = Below("report.html")
    rows = Below("rows")
    eval_rows = Below("eval_rows")
    checkpoints = Below("checkpoints")
    epochs = Below("epochs")
    metrics = Below("metrics.jsonl")
    model = Below("model")
    made_by = Below("model/davir_training.json")
    record = Below("record.json")

    def epoch(self, number: int) -> str:
        """Name the folder of the checkpoint that an epoch of a warm-up leaves, from 1."""
        return join(self.epochs, str(number))

    def pass_of(self, label: str) -> str:
        """Name the folder of one pass of measuring."""
        return join(self.work, label)

    def export(self, format: str) -> str:
        """Name the folder of the core-set in one export format."""
        return self.coreset if format == "parquet" else join(self.exports, format)


class PassLayout(Layout):
    """The paths of one pass of measuring."""

    plan = Below("plan.parquet")
    chunks = Below("chunks")
    journal = Below("journal")


class RankedLayout(Layout):
    """The paths of the steps of ranking."""

    scored = Below("scored")
    marked = Below("marked")


def probe_file(folder: str) -> str:
    """Name a file whose writing tells whether a folder can be written to."""
    return join(folder, f"probe-{uuid4().hex}")


def numbered(folder: str, index: int, suffix: str = "parquet") -> str:
    """Name one of the files of a folder that are numbered from 0 on."""
    return join(folder, f"{index:05d}.{suffix}")


def coreset_file(folder: str, index: int, suffix: str) -> str:
    """Name one of the files of a core-set, or of an export of it."""
    return join(folder, f"part-{index:05d}.{suffix}")


def lease_file(folder: str, number: int) -> str:
    """Name the file of a lease: each holder's has a number of its own."""
    return join(folder, f"{number:08d}.json")
