"""Arrow streams, as datasets.save_to_disk and the cache of `datasets` write them: read from the first row on."""

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from davir_ray.corpus import mistaken
from davir_ray.corpus.opening import opened_file
from davir_ray.corpus.parquet_files import check_names, records_of, with_text
from davir_ray.corpus.split import Record, Split
from davir_ray.errors import UnreadableFile
from davir_ray.storage.filesystems import is_damage

ROWS_AT_ONCE = 1024
MESSAGE = b"\xff\xff\xff\xff"
"""With what each message of a stream begins."""


@contextmanager
def opened(path: str) -> Iterator[pa.RecordBatchStreamReader]:
    """Open a stream; what Arrow cannot make sense of is an `UnreadableFile`."""
    with opened_file(path) as file:
        head = file.read(64)
        file.seek(0)
        try:
            yield pa.ipc.open_stream(file)
        except (pa.ArrowException, OSError) as error:
            if not is_damage(error):
                raise
            known = None if head.startswith(MESSAGE) else mistaken.known_by_beginning(head)
            what = known or ("is no whole stream of Arrow, as `datasets` writes it" if head else "is empty")
            raise UnreadableFile(f"{path}: {what} ({str(error).splitlines()[0]})") from error


def look(path: str) -> tuple[str, ...]:
    """Return the columns of a file. Raises `UnreadableFile`."""
    with opened(path) as reader:
        check_names(path, reader.schema)
        return tuple(reader.schema.names)


def _batches(path: str) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield a file in batches, each with the position of its first row."""
    at = 0
    with opened(path) as reader:
        for batch in reader:
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                yield at + start, batch.slice(start, ROWS_AT_ONCE)
            at += batch.num_rows


def rows(
    split: Split, columns: Sequence[str] | None = None, wanted: Container[int] | None = None
) -> Iterator[tuple[int, Record]]:
    """Read the rows of a split with their positions in the file; binary values as text, as of Parquet.

    wanted: positions of the rows that are yielded; without it, all of the split.
    """
    end = None if split.num_rows is None else split.first_row + split.num_rows
    for first, batch in _batches(split.path):
        asked = [name for name in batch.schema.names if columns is None or name in columns]
        for row, record in enumerate(records_of(with_text(batch.select(asked))), first):
            if end is not None and row >= end:
                return
            if row >= split.first_row and (wanted is None or row in wanted):
                yield row, record


def table(split: Split, wanted: Sequence[int]) -> pa.Table:
    """Read the rows at these positions of the file, in this order, with all columns and their types."""
    needed, found = set(wanted), [schema(split).empty_table()]
    held: list[int] = []
    for first, batch in _batches(split.path):
        here = [row for row in range(first, first + batch.num_rows) if row in needed]
        if here:
            picked = batch.take(pa.array([row - first for row in here]))
            found.append(pa.Table.from_batches([picked]).replace_schema_metadata())
            held += here
    place = {row: index for index, row in enumerate(held)}
    return pa.concat_tables(found).take(pa.array([place[row] for row in wanted], pa.int64()))


def schema(split: Split) -> pa.Schema:
    """Return the columns of a file."""
    with opened(split.path) as reader:
        return reader.schema.remove_metadata()
