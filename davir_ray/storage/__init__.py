"""Files on any fsspec URI.

files.py        whole, or not there at all
layout.py       every path of a store and of a run
filesystems.py  the filesystem behind a URI, its patience and its errors in our words
json_lines.py   small files of JSON objects, one a line; sealed.py: JSON files that tell whether they are whole
typed.py        models of what is written as JSON
damage.py       what becomes of files that are damaged
"""

from davir_ray.storage.files import (
    LISTED_SECONDS,
    LOOK_SECONDS,
    MODIFIED,
    PIECE_BYTES,
    TEMPORARY,
    THREADS,
    File,
    absolute,
    await_files,
    await_listing,
    concurrently,
    create,
    delete,
    exists,
    files_below,
    files_in,
    is_local,
    join,
    list_files,
    list_folders,
    read_bytes,
    read_footer,
    read_pieces,
    read_row_groups,
    read_rows,
    read_table,
    real_folder,
    rename,
    size_of,
    torn_below,
    write_atomic,
    write_table,
)

__all__ = [
    "LISTED_SECONDS",
    "LOOK_SECONDS",
    "MODIFIED",
    "PIECE_BYTES",
    "TEMPORARY",
    "THREADS",
    "File",
    "absolute",
    "await_files",
    "await_listing",
    "concurrently",
    "create",
    "delete",
    "exists",
    "files_below",
    "files_in",
    "is_local",
    "join",
    "list_files",
    "list_folders",
    "read_bytes",
    "read_footer",
    "read_pieces",
    "read_row_groups",
    "read_rows",
    "read_table",
    "real_folder",
    "rename",
    "size_of",
    "torn_below",
    "write_atomic",
    "write_table",
]
