"""A file of the corpus, opened: what its storage raises names the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from davir_ray.errors import CorpusError, UnreadableFile
from davir_ray.storage.filesystems import filesystem, reaching


@contextmanager
def opened_file(path: str) -> Iterator[BinaryIO]:
    """Open a file. Raises `UnreadableFile` if it is gone, `CorpusError` where its storage fails or refuses.

    Only the former is a reason to skip the file: the latter, expired credentials among it, says nothing about the file.
    """
    with reaching(path, CorpusError):
        fs, name = filesystem(path)
        try:
            with fs.open(name, "rb") as file:
                yield file
        except FileNotFoundError as error:
            raise UnreadableFile(f"{path}: cannot be opened: {error.strerror or error}") from error
