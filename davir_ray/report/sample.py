"""A sample of rows: those with the lowest example ids, which are hashes of content.

What is sampled depends neither on files, parts nor order, and of fewer rows than the sample holds it is all of them.
"""

import numpy as np
import pyarrow as pa

from davir_ray.ids import Keys, keys_of


class LowestIds:
    """The rows with the lowest example ids of all tables that were added; `rows` is None before the first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: pa.Table | None = None

    def add(self, table: pa.Table) -> None:
        """Take in rows, each with an `example_id` of its own."""
        if self.rows is not None and len(self.rows) == self.size:
            table = table.filter(pa.array(keys_of(table["example_id"]) < self._highest()))
        if self.rows is not None and not len(table):
            return
        both = table if self.rows is None else pa.concat_tables([self.rows, table])
        lowest = np.argsort(keys_of(both["example_id"]), kind="stable")[: self.size]
        self.rows = both.take(pa.array(lowest)).combine_chunks()

    def _highest(self) -> np.bytes_:
        assert self.rows is not None
        keys: Keys = keys_of(self.rows["example_id"])
        highest: np.bytes_ = keys[-1]
        return highest
