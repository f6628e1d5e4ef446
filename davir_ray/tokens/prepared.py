"""A tokenised corpus on disk: for each split, one part of EXAMPLES and one of TOKENS.

    <store>/prepared/<digest>/examples/00000.parquet
    <store>/prepared/<digest>/tokens/00000.parquet

The digest names everything that decides the content, so runs share these parts. TOKENS is written first: a split
whose EXAMPLES part exists is done.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from davir_ray import storage
from davir_ray.schema import EXAMPLES, TOKENS, View


@dataclass(frozen=True)
class Prepared:
    """The tokenised corpus in `folder`, in so many splits."""

    folder: str
    splits: int

    def done(self) -> frozenset[int]:
        """List the splits that are complete."""
        uris = storage.list_files(storage.join(self.folder, "examples"), ".parquet")
        return frozenset(int(uri.rsplit("/", 1)[-1].removesuffix(".parquet")) for uri in uris)

    def write(self, split: int, examples: pa.Table, tokens: pa.Table) -> None:
        """Write both parts of a split."""
        storage.write_table(self._uri("tokens", split), tokens.cast(TOKENS))
        storage.write_table(self._uri("examples", split), examples.cast(EXAMPLES))

    def examples(self, split: int) -> pa.Table:
        """Read the EXAMPLES part of a split."""
        return storage.read_table(self._uri("examples", split))

    def tokens(self, split: int, columns: list[str] | None = None) -> pa.Table:
        """Read the TOKENS part of a split, or some of its columns."""
        return storage.read_table(self._uri("tokens", split), columns)

    def sequences(self, split: int, views: Sequence[View]) -> pa.Table:
        """Read what TOKENS says of the sequences of some views, without the tokens; adds their `position`."""
        table = self.tokens(split, ["example", "view", "sequence_id", "num_tokens", "length"])
        position = pa.array(np.arange(len(table), dtype=np.int32))
        table = table.append_column("position", position)
        return table.filter(pc.is_in(table["view"], pa.array([str(view) for view in views])))

    def _uri(self, table: str, split: int) -> str:
        return storage.join(self.folder, table, f"{split:05d}.parquet")
