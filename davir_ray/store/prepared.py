"""A tokenised corpus on disk: for each split, one part of EXAMPLES and one of TOKENS.

    <store>/prepared/<digest of the settings>/examples/<digest of the split>.parquet
    <store>/prepared/<digest of the settings>/tokens/<digest of the split>.parquet

Together the digests name everything that decides the content, so runs share these parts, and a corpus that has grown
brings only the parts of its new files. A split that has both parts is done, and so is one that cannot be read to its
end: bad/<digest of the split>.txt says why, and it has no rows. Each part says which split it holds, with a digest of
the columns that are read most; what cannot be read, or says something else, is a `DamagedPart`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from davir_ray import storage
from davir_ray.corpus.folds import Fold
from davir_ray.corpus.not_read import NotRead
from davir_ray.errors import DamagedPart
from davir_ray.ids import keys_of
from davir_ray.schema import EXAMPLES, TOKENS, View, is_of_view
from davir_ray.storage.damage import expecting, set_aside
from davir_ray.storage.layout import PreparedLayout
from davir_ray.store.labels import check_label, check_schema, digest_of, labelled

ROWS_PER_GROUP = 1024
NOT_READ = b"davir_not_read"
"""Metadata of an EXAMPLES part: what of its rows was not read, as JSON."""
SCHEMAS = {"examples": EXAMPLES, "tokens": TOKENS}
DIGESTED = {
    "examples": ["row", "example_id", "source", "group", "status"],
    "tokens": ["example", "view", "sequence_id", "num_tokens", "length"],
}
"""The columns that a part's digest is of. Of ids and marks there is one already: the sequence id."""


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
        there = self._stems(self._paths.table("examples"), ".parquet")
        there &= self._stems(self._paths.table("tokens"), ".parquet")
        there |= self._stems(self._paths.bad, ".txt")
        return frozenset(split for split, part in enumerate(self.parts) if part in there)

    def write(
        self, split: int, examples: pa.Table, tokens: pa.Table, not_read: NotRead | None = None
    ) -> None:
        """Write both parts of a split; the first keeps what of the rows was not read."""
        # A chunk of like-long sequences then lies in a few row groups (see logprobs/chunks.py).
        order = [("length", "descending"), ("sequence_id", "ascending")]
        tokens = tokens.cast(TOKENS).sort_by(order)
        storage.write_table(
            self.uri("tokens", split), self._labelled("tokens", split, tokens), ROWS_PER_GROUP
        )
        noted = {NOT_READ: json.dumps(asdict(not_read or NotRead()), sort_keys=True).encode()}
        examples = examples.cast(EXAMPLES).replace_schema_metadata(noted)
        storage.write_table(self.uri("examples", split), self._labelled("examples", split, examples))

    def write_bad(self, split: int, reason: str) -> None:
        """Note that a split cannot be read to its end; it has no rows."""
        storage.write_atomic(self._bad_uri(split), reason.encode())

    def bad(self) -> dict[int, str]:
        """Return the splits that cannot be read, with the reason."""
        there = self._stems(self._paths.bad, ".txt")
        bad = [split for split, part in enumerate(self.parts) if part in there]
        return {split: storage.read_bytes(self._bad_uri(split)).decode(errors="replace") for split in bad}

    def count_rows(self) -> list[int]:
        """Count the rows of each split."""
        return self._counted("examples")

    def count_sequences(self) -> list[int]:
        """Count the sequences of each split, of all views."""
        return self._counted("tokens")

    def not_read(self) -> list[NotRead]:
        """Return what of the rows of each split was not read."""
        return storage.concurrently(self._not_read, range(self.splits))

    def _not_read(self, split: int) -> NotRead:
        uri = self.uri("examples", split)
        try:
            _, metadata = storage.read_footer(uri)
        except FileNotFoundError as error:
            self._check_bad(uri, split, error)
            return NotRead()
        check_label(uri, metadata, **self._label("examples", split))
        return NotRead(**json.loads(metadata[NOT_READ]))

    def examples(self, split: int) -> pa.Table:
        """Read the EXAMPLES part of a split."""
        return self._read("examples", split, EXAMPLES.names)

    def tokens(self, split: int, columns: list[str] | None = None) -> pa.Table:
        """Read the TOKENS part of a split, or some of its columns."""
        return self._read("tokens", split, columns or TOKENS.names)

    def token_rows(self, split: int, positions: Sequence[int]) -> pa.Table:
        """Read some rows of the TOKENS part of a split."""
        uri, columns = self.uri("tokens", split), ["sequence_id", "ids", "scored"]
        with expecting(uri):
            rows = storage.read_rows(uri, positions, columns)
        self._check("tokens", split, rows, columns)
        return rows

    def sequences(self, split: int, views: Sequence[View], fold: Fold | None = None) -> pa.Table:
        """Read what TOKENS says of the sequences of some views (and of one fold), without the tokens.

        Adds their `position` in the part.
        """
        table = self.tokens(split, ["example", "view", "sequence_id", "num_tokens", "length"])
        position = pa.array(np.arange(len(table), dtype=np.int32))
        table = table.append_column("position", position)
        table = table.filter(is_of_view(table, *views))
        if fold is None:
            return table
        inside = fold.holds(keys_of(self.examples(split)["example_id"]))
        return table.filter(pa.array(inside[table["example"].to_numpy()]))

    def mislabelled(self) -> list[DamagedPart]:
        """Look at the labels of all parts, and list those that are damaged as far as these tell."""
        pairs = [(table, split) for split in sorted(self.done()) for table in SCHEMAS]
        return [one for one in storage.concurrently(self._damage, pairs) if one is not None]

    def _damage(self, part: tuple[str, int]) -> DamagedPart | None:
        try:
            self._count(*part)
        except DamagedPart as damage:
            return damage
        return None

    def set_aside(self, damage: DamagedPart) -> None:
        """Set aside a damaged part, and with it the other of its split: it is prepared again as a whole."""
        set_aside(damage)
        name = damage.uri.rsplit("/", 1)[-1].removesuffix(".parquet")
        for table in SCHEMAS:
            storage.delete(self._paths.part(table, name))

    @property
    def _paths(self) -> PreparedLayout:
        return PreparedLayout(self.folder)

    def _stems(self, folder: str, suffix: str) -> set[str]:
        return {file.stem for file in storage.files_in(folder, suffix)}

    def _label(self, table: str, split: int) -> dict[str, str]:
        return {"holds": table, "of": f"{self.folder.rstrip('/').rsplit('/', 1)[-1]}/{self.parts[split]}"}

    def _labelled(self, table: str, split: int, rows: pa.Table) -> pa.Table:
        return labelled(rows, **self._label(table, split), digest=digest_of(rows, DIGESTED[table]))

    def _read(self, table: str, split: int, columns: list[str]) -> pa.Table:
        """Read columns of a part. Raises `DamagedPart` if it is gone, or not what it should be."""
        uri = self.uri(table, split)
        try:
            rows = storage.read_table(uri, columns)
        except FileNotFoundError as error:
            self._check_bad(uri, split, error)
            return SCHEMAS[table].empty_table().select(columns)
        self._check(table, split, rows, columns)
        return rows

    def _check(self, table: str, split: int, rows: pa.Table, columns: list[str]) -> None:
        uri = self.uri(table, split)
        check_schema(uri, rows.schema, pa.schema([SCHEMAS[table].field(name) for name in columns]))
        label = check_label(uri, rows.schema.metadata, **self._label(table, split))
        if set(columns) >= set(DIGESTED[table]) and label.get("digest") != digest_of(rows, DIGESTED[table]):
            raise DamagedPart(uri, "holds other rows than were written: their digest does not fit")

    def _check_bad(self, uri: str, split: int, error: FileNotFoundError) -> None:
        """Raise `DamagedPart` for a part that is not there, unless its split cannot be read."""
        if not storage.exists(self._bad_uri(split)):
            raise DamagedPart(uri, "is gone") from error

    def _counted(self, table: str) -> list[int]:
        return storage.concurrently(partial(self._count, table), range(self.splits))

    def _count(self, table: str, split: int) -> int:
        uri = self.uri(table, split)
        try:
            rows, metadata = storage.read_footer(uri)
        except FileNotFoundError as error:
            self._check_bad(uri, split, error)
            return 0
        check_label(uri, metadata, **self._label(table, split))
        return rows

    def uri(self, table: str, split: int) -> str:
        """Name the part of a split: of `examples` or of `tokens`."""
        return self._paths.part(table, self.parts[split])

    def _bad_uri(self, split: int) -> str:
        return self._paths.bad_part(self.parts[split])
