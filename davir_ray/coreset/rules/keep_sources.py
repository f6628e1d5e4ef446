"""The rule `keep_sources`: every row of some sources."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field

from davir_ray.config import CorpusConfig
from davir_ray.coreset.rules.rule import Mask, Rows, Rule


class KeepSourcesRule(Rule):
    """Keep every row of the named sources, whatever other rules say (wherever this stands in the list)."""

    type: Literal["keep_sources"] = "keep_sources"
    sources: tuple[str, ...] = Field(min_length=1)
    """Names under `corpus.paths`, or values of the column that `corpus.source_by` names."""

    @property
    def kept_sources(self) -> tuple[str, ...]:
        """The named sources."""
        return self.sources

    def check_corpus(self, corpus: CorpusConfig) -> None:
        """Raise `ValueError` for a source that the corpus does not have, where the recipe names its sources."""
        if corpus.source_by is None and (unknown := set(self.sources) - set(corpus.paths)):
            names = ", ".join(corpus.paths)
            raise ValueError(f"keep_sources names {', '.join(sorted(unknown))}; corpus.paths has {names}")

    def keep(self, rows: Rows) -> Iterator[Mask]:
        """Keep all rows: this is no cut."""
        return (np.ones(len(table), dtype=bool) for table in rows("rank"))
