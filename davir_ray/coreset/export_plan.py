"""What of a core-set is written, in which formats and into which folders."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from davir_ray.config import CorpusConfig, ExportConfig
from davir_ray.coreset.export import CoresetFiles, Template, folder_name
from davir_ray.corpus.split import Split
from davir_ray.storage.layout import RunLayout

Counts = NDArray[np.int64]
"""Selected rows by part of the scored table and by split [parts, splits]."""


@dataclass(frozen=True)
class Export:
    """Everything that a worker needs to write the core-set.

    formats: the corpus format of each source.
    """

    corpus: CorpusConfig
    formats: dict[str, str]
    splits: tuple[Split, ...]
    config: ExportConfig
    run_dir: str
    template: Template

    @property
    def written(self) -> tuple[str, ...]:
        """The formats that are written: those asked for, and the scores beside `jsonl`."""
        asked = self.config.formats
        return (*asked, "scores") if "jsonl" in asked else asked

    def folder(self, name: str) -> str:
        """Name the folder of one export format."""
        return RunLayout(self.run_dir).export(name)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The sources that have a folder each; one `""` where all rows go together."""
        names = tuple(dict.fromkeys(split.source for split in self.splits))
        return names if len(names) > 1 and not self.config.one_schema else ("",)

    @cached_property
    def folder_of(self) -> NDArray[np.int64]:
        """The folder of each split, as an index into `sources` [splits]."""
        known = {name: index for index, name in enumerate(self.sources)}
        return np.array([known.get(split.source, 0) for split in self.splits], dtype=np.int64)

    def layout(self, counts: Counts) -> CoresetFiles:
        """Lay out the files of the core-set."""
        rows = tuple(self.by_folder(counts).sum(axis=0).tolist())
        return CoresetFiles(tuple(map(folder_name, self.sources)), rows, self.config.rows_per_file)

    def by_folder(self, counts: Counts) -> Counts:
        """Count selected rows by part and by folder."""
        return counts @ np.eye(len(self.sources), dtype=np.int64)[self.folder_of]
