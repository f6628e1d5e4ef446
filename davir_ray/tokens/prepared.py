"""A tokenised corpus on disk: for each split, one part of EXAMPLES and one of TOKENS.

    <store>/prepared/<digest of the settings>/examples/<digest of the split>.parquet
    <store>/prepared/<digest of the settings>/tokens/<digest of the split>.parquet

Together the digests name everything that decides the content, so runs share these parts, and a corpus that has grown
brings only the parts of its new files. TOKENS is written first: a split whose EXAMPLES part exists is done.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from davir_ray import storage
from davir_ray.corpus.not_read import NotRead
from davir_ray.schema import EXAMPLES, TOKENS, View
from davir_ray.store.keys import keys_of
from davir_ray.tokens.folds import Fold

ROWS_PER_GROUP = 1024
NOT_READ = b"davir_not_read"
"""Metadata of an EXAMPLES part: what of its rows was not read, as JSON."""


@dataclass(frozen=True)
class Prepared:
    """A tokenised corpus. parts: the name of each split's parts in `folder`, which may hold others beside them."""

    folder: str
    parts: tuple[str, ...]

    @property
    def splits(self) -> int:
        """Count the splits."""
        return len(self.parts)

    def done(self) -> frozenset[int]:
        """List the splits that are complete."""
        there = {file.stem for file in storage.files_in(storage.join(self.folder, "examples"), ".parquet")}
        return frozenset(split for split, part in enumerate(self.parts) if part in there)

    def write(
        self, split: int, examples: pa.Table, tokens: pa.Table, not_read: NotRead | None = None
    ) -> None:
        """Write both parts of a split; the first keeps what of the rows was not read."""
        # A chunk of like-long sequences then lies in a few row groups (see logprobs/chunks.py).
        order = [("length", "descending"), ("sequence_id", "ascending")]
        tokens = tokens.cast(TOKENS).sort_by(order)
        storage.write_table(self._uri("tokens", split), tokens, ROWS_PER_GROUP)
        noted = {NOT_READ: json.dumps(asdict(not_read or NotRead()), sort_keys=True).encode()}
        examples = examples.cast(EXAMPLES).replace_schema_metadata(noted)
        storage.write_table(self._uri("examples", split), examples)

    def write_bad(self, split: int, reason: str) -> None:
        """Note that a split cannot be read to its end; it has no rows."""
        storage.write_atomic(self._bad_uri(split), reason.encode())
        self.write(split, EXAMPLES.empty_table(), TOKENS.empty_table())

    def bad(self) -> dict[int, str]:
        """Return the splits that cannot be read, with the reason."""
        there = {file.stem for file in storage.files_in(storage.join(self.folder, "bad"), ".txt")}
        bad = [split for split, part in enumerate(self.parts) if part in there]
        return {split: storage.read_bytes(self._bad_uri(split)).decode() for split in bad}

    def count_rows(self) -> list[int]:
        """Count the rows of each split."""
        return self._counted("examples")

    def count_sequences(self) -> list[int]:
        """Count the sequences of each split, of all views."""
        return self._counted("tokens")

    def not_read(self) -> list[NotRead]:
        """Return what of the rows of each split was not read."""
        uris = [self._uri("examples", split) for split in range(self.splits)]
        notes = storage.concurrently(storage.read_metadata, uris)
        return [NotRead(**json.loads(note[NOT_READ])) for note in notes]

    def examples(self, split: int) -> pa.Table:
        """Read the EXAMPLES part of a split."""
        return storage.read_table(self._uri("examples", split))

    def tokens(self, split: int, columns: list[str] | None = None) -> pa.Table:
        """Read the TOKENS part of a split, or some of its columns."""
        return storage.read_table(self._uri("tokens", split), columns)

    def token_rows(self, split: int, positions: Sequence[int]) -> pa.Table:
        """Read some rows of the TOKENS part of a split."""
        return storage.read_rows(self._uri("tokens", split), positions, ["sequence_id", "ids", "scored"])

    def sequences(self, split: int, views: Sequence[View], fold: Fold | None = None) -> pa.Table:
        """Read what TOKENS says of the sequences of some views (and of one fold), without the tokens.

        Adds their `position` in the part.
        """
        table = self.tokens(split, ["example", "view", "sequence_id", "num_tokens", "length"])
        position = pa.array(np.arange(len(table), dtype=np.int32))
        table = table.append_column("position", position)
        table = table.filter(pc.is_in(table["view"], pa.array([str(view) for view in views])))
        if fold is None:
            return table
        inside = fold.holds(keys_of(self.examples(split)["example_id"]))
        return table.filter(pa.array(inside[table["example"].to_numpy()]))

    def _counted(self, table: str) -> list[int]:
        uris = [self._uri(table, split) for split in range(self.splits)]
        return storage.concurrently(storage.count_rows, uris)

    def _uri(self, table: str, split: int) -> str:
        return storage.join(self.folder, table, f"{self.parts[split]}.parquet")

    def _bad_uri(self, split: int) -> str:
        return storage.join(self.folder, "bad", f"{self.parts[split]}.txt")
