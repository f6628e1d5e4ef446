"""Files on any fsspec URI: whole, or not there at all.

Everything that the project writes goes through `write_atomic`, so a file that can be listed is complete. A file that
is missing is a `FileNotFoundError`; a storage that fails is `Unreachable`, after as many tries as filesystems.py says.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, TypeVar
from uuid import uuid4

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from davir_ray.errors import DamagedPart, StoreError
from davir_ray.storage.filesystems import UNREADABLE, filesystem, is_damage, reaching, writing

TEMPORARY = ".davir-tmp-"
"""What the name of a half-written local file starts with."""

MODIFIED = ("mtime", "LastModified", "last_modified", "created")
"""What filesystems call the time of a file's last change, in the order of trust."""

PIECE_BYTES = 4 * 2**20
LISTED_SECONDS = 60.0
LOOK_SECONDS = 0.5
THREADS = 16
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class File:
    """A file as its folder lists it. size: bytes; modified: seconds since 1970, by the clock of the filesystem."""

    uri: str
    size: int
    modified: float

    @property
    def stem(self) -> str:
        """The file's name without folder and ending."""
        return self.uri.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def absolute(uri: str) -> str:
    """Make a local path absolute, so that it means the same to a worker in another folder; leave URIs alone."""
    return uri if "://" in uri else os.path.abspath(os.path.expanduser(uri))


def real_folder(uri: str) -> str:
    """Name a folder by the path that it has itself, absolute and without symbolic links; leave URIs as they are.

    The last names of a run's folder are the run's: seals cover them.
    """
    return uri.rstrip("/") if "://" in uri else os.path.realpath(os.path.expanduser(uri))


def is_local(fs: AbstractFileSystem) -> bool:
    """Tell whether this filesystem is the machine's own."""
    return isinstance(fs, fsspec.get_filesystem_class("file"))


def join(uri: str, *names: str) -> str:
    """Append names to a folder's URI."""
    return (uri if uri.endswith("/") else uri + "/") + "/".join(names)


def write_atomic(uri: str, data: bytes) -> None:
    """Write a file that no reader ever sees in part; an older one is replaced.

    Holds for local folders (a rename) and object stores (one put), not for FTP and its like. Raises `Unreachable`.
    """
    with writing(uri):
        fs, path = filesystem(uri)
        if is_local(fs):
            _replace_local(path, data)
        else:
            _put(fs, path, data)


def create(uri: str, data: bytes) -> bool:
    """Write a file where there is none, whole; tell whether it was written. Of several at once, one succeeds.

    `data` must be nobody else's: a write whose answer was lost is repeated, and finds itself. On an object store that
    knows no conditional write, the last one succeeds, and all are told that they did.
    """
    with writing(uri):
        fs, path = filesystem(uri)
        if is_local(fs):
            return _link_local(path, data)
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return bool(fs.cat_file(path) == data)
        except OSError:
            if fs.exists(path):  # S3 refuses with a failed condition, which s3fs calls an invalid argument
                return bool(fs.cat_file(path) == data)
            raise
        return True


def _link_local(path: str, data: bytes) -> bool:
    """Write beside, and link: a link, unlike a rename, replaces nothing."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f"{TEMPORARY}{uuid4().hex}-{name}")
    _replace_local(temporary, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.remove(temporary)
    return True


def _put(fs: AbstractFileSystem, path: str, data: bytes) -> None:
    try:
        fs.pipe_file(path, data)
    except FileNotFoundError:
        # Only filesystems with real folders come here; an object store may forbid looking at the bucket.
        fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        fs.pipe_file(path, data)


def _replace_local(path: str, data: bytes) -> None:
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f"{TEMPORARY}{uuid4().hex}-{name}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def write_table(uri: str, table: pa.Table, rows_per_group: int = 2**20) -> None:
    """Write a table as Parquet with checksums, atomically; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    # Chunking decides where pages begin, so it must not depend on how the table was put together.
    pq.write_table(
        table.combine_chunks(),
        sink,
        compression="zstd",
        row_group_size=rows_per_group,
        write_page_checksum=True,
    )
    write_atomic(uri, sink.getvalue().to_pybytes())


def read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file, or some of its columns. Raises `DamagedPart`, also where a bit has flipped."""
    data = read_bytes(uri)
    try:
        table = pq.read_table(pa.BufferReader(data), columns=columns, page_checksum_verification=True)
        _ = table.column_names  # raises here, not where somebody looks at them, if they are no text
        return table
    except (*UNREADABLE, OSError) as error:
        raise DamagedPart(uri, f"not readable as Parquet: {error}") from error


def read_footer(uri: str) -> tuple[int, dict[bytes, bytes]]:
    """Read how many rows a Parquet file has, and what it says of itself beside its columns."""
    with _opened(uri) as file:
        footer = pq.ParquetFile(file).metadata
        return int(footer.num_rows), dict(footer.metadata or {})


def read_rows(uri: str, rows: Sequence[int], columns: list[str] | None = None) -> pa.Table:
    """Read some rows of a Parquet file by position, in this order; row groups without any are not fetched.

    columns: all of them without it.
    """
    with _opened(uri) as file:
        parquet = _parquet(file)
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        starts = np.concatenate(([0], np.cumsum(sizes)))
        if len(rows) and max(rows) >= starts[-1]:
            raise DamagedPart(uri, f"has {starts[-1]:,} rows; row {max(rows):,} is asked for")
        group = np.searchsorted(starts, rows, side="right") - 1
        wanted = np.unique(group)
        table = parquet.read_row_groups(wanted.tolist(), columns=columns)
    held = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in wanted] or [np.array([], int)])
    return table.take(pa.array(np.searchsorted(held, rows)))


def read_row_groups(uri: str, groups: range) -> pa.Table:
    """Read some row groups of a Parquet file; the others are not fetched."""
    with _opened(uri) as file:
        return _parquet(file).read_row_groups(list(groups))


def _parquet(file: BinaryIO) -> pq.ParquetFile:
    """Open a file of which only what is wanted is to be fetched, in few requests, with its checksums."""
    return pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True)


@contextmanager
def _opened(uri: str) -> Iterator[BinaryIO]:
    with reaching(uri):
        fs, path = filesystem(uri)
        with fs.open(path, "rb", cache_type="none") as file:  # s3fs would read 50 MB ahead of each row group
            try:
                yield file
            except (*UNREADABLE, OSError) as error:
                if not is_damage(error):
                    raise
                raise DamagedPart(uri, f"not readable as Parquet: {error}") from error


def read_bytes(uri: str) -> bytes:
    """Read a whole file."""
    with reaching(uri):
        fs, path = filesystem(uri)
        return bytes(fs.cat_file(path))


def read_pieces(uri: str) -> Iterator[bytes]:
    """Read a file from beginning to end, `PIECE_BYTES` at a time."""
    with reaching(uri):
        fs, path = filesystem(uri)
        with fs.open(path, "rb", cache_type="none") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece


def size_of(uri: str) -> int:
    """Ask for the bytes of a file by its name: a listing may lag."""
    with reaching(uri):
        fs, path = filesystem(uri)
        return int(fs.size(path))


def exists(uri: str) -> bool:
    """Tell whether there is a file or folder."""
    with reaching(uri):
        fs, path = filesystem(uri)
        return bool(fs.exists(path))


def list_files(uri: str, suffix: str = "") -> list[str]:
    """List the files of one folder by name, sorted, as URIs; a folder that is not there has none."""
    return [file.uri for file in files_in(uri, suffix)]


def files_in(uri: str, suffix: str = "") -> list[File]:
    """List the files of one folder with size and time, sorted by name; a folder that is not there has none."""
    files = [(entry["name"].rsplit("/", 1)[-1], entry) for entry in _entries(uri) if entry["type"] == "file"]
    return _files(
        uri, ((name, entry) for name, entry in files if name.endswith(suffix) and not _is_torn(name))
    )


def files_below(uri: str) -> list[File]:
    """List the files of a folder and of all folders in it, sorted; a folder that is not there has none."""
    return _files(uri, ((name, entry) for name, entry in _below(uri) if not _is_torn(name)))


def torn_below(uri: str) -> list[File]:
    """List the files below a folder that never got their name, since their writer is at work or was killed.

    Only local folders have such files: an object store takes a file whole.
    """
    if not is_local(filesystem(uri)[0]):
        return []
    return _files(uri, ((name, entry) for name, entry in _below(uri) if _is_torn(name)))


def _below(uri: str) -> list[tuple[str, dict[str, Any]]]:
    with reaching(uri):
        fs, path = filesystem(uri)
        found = fs.find(path, detail=True)
    return [(name[len(path.rstrip("/")) + 1 :], entry) for name, entry in found.items()]


def _is_torn(name: str) -> bool:
    return name.rsplit("/", 1)[-1].startswith(TEMPORARY)


def list_folders(uri: str) -> list[str]:
    """List the folders in a folder, sorted, as URIs."""
    names = (entry["name"].rstrip("/") for entry in _entries(uri) if entry["type"] == "directory")
    return sorted(join(uri, name.rsplit("/", 1)[-1]) for name in names)


def _entries(uri: str) -> list[dict[str, Any]]:
    try:
        with reaching(uri):
            fs, path = filesystem(uri)
            entries: list[dict[str, Any]] = fs.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return entries


def await_listing(done: Callable[[], bool], what: str) -> None:
    """Wait until a listing shows what was written: on some object stores it does so later.

    done: lists, and tells whether all is there. what: named in the `StoreError` if it never is.
    """
    end = time.monotonic() + LISTED_SECONDS
    while not done():
        if time.monotonic() > end:
            raise StoreError(
                f"{what}: what was written there is not listed after {LISTED_SECONDS:.0f} seconds"
            )
        time.sleep(LOOK_SECONDS)


def _files(uri: str, named: Iterable[tuple[str, Mapping[str, Any]]]) -> list[File]:
    files = (
        File(join(uri, name), int(entry["size"] or 0), _modified(entry)) for name, entry in named if name
    )
    return sorted(files, key=lambda file: file.uri)


def _modified(entry: Mapping[str, Any]) -> float:
    """Read when a file was last changed; where a filesystem does not tell, a file counts as new."""
    times = [entry[name] for name in MODIFIED if entry.get(name) is not None] or [time.time()]
    return times[0].timestamp() if isinstance(times[0], datetime) else float(times[0])


def await_files(folder: str, count: int) -> None:
    """Wait until a folder lists so many files. Raises `StoreError` if it never does."""
    await_listing(lambda: len(list_files(folder)) >= count, folder)


def concurrently(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Call a function on each item, many at once, so that they wait for an object store together."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))


def rename(uri: str, to: str) -> None:
    """Give a file another name in its filesystem; what had that name is replaced."""
    with reaching(uri):
        fs, path = filesystem(uri)
        fs.mv(path, filesystem(to)[1])


def delete(uri: str) -> None:
    """Delete a file or a folder with all that is in it; nothing happens where there is none."""
    try:
        with reaching(uri):
            fs, path = filesystem(uri)
            fs.rm(path, recursive=True)
    except FileNotFoundError:
        return
