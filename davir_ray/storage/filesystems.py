"""The filesystem behind a URI: as patient as an object store needs, and with its errors in our words.

gcsfs and adlfs repeat a request that failed for half a minute of their own accord. s3fs repeats timeouts, broken
connections and `SlowDown`, but leaves all other errors to botocore, which gives up after some seconds.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pyarrow as pa
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from davir_ray.errors import DavirError, Unreachable

S3_RETRIES = {"mode": "standard", "total_max_attempts": 10}
"""About a minute of 500s in a row. The standard mode waits a little longer each time, at random, and has a budget
for the whole client, so that a store that is down for everybody is given up sooner."""

SAID_BY_USER = ("AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE")
TOLD_APART = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, DavirError)
"""What callers expect, and act on."""


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """Return the filesystem of a URI, and the path on it; local paths become absolute."""
    fs, path = url_to_fs(uri, **_options(uri))
    fs.invalidate_cache()
    return fs, path


def _options(uri: str) -> dict[str, Any]:
    """Say what fsspec is told beside the URI; its own settings (FSSPEC_S3, ~/.config/fsspec) go before ours."""
    if not uri.startswith(("s3://", "s3a://")) or any(os.environ.get(name) for name in SAID_BY_USER):
        return {}
    said = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    return {"config_kwargs": {"retries": dict(S3_RETRIES)} | said}


UNREADABLE = (pa.ArrowException, UnicodeDecodeError)
"""What Arrow raises for a file that makes no sense: names of columns need not be text any more."""


def is_damage(error: Exception) -> bool:
    """Tell whether it is Arrow that cannot make sense of a file; errors of filesystems have a number or a class."""
    return isinstance(error, UNREADABLE) or (type(error) is OSError and error.errno is None)


@contextmanager
def reaching(uri: str, failure: type[DavirError] = Unreachable) -> Iterator[None]:
    """Turn what a filesystem raises into an error of ours that names the URI.

    That a file is missing, or there already, stays as it is.
    """
    try:
        yield
    except TOLD_APART:
        raise
    except Exception as error:  # clients of object stores have errors of their own beside OSError
        raise failure(f"{uri}: the storage fails: {_told(error)}") from error


@contextmanager
def writing(uri: str) -> Iterator[None]:
    """The same for a write, where it is an error, too, that a folder is missing, or is a file."""
    try:
        with reaching(uri):
            yield
    except OSError as error:
        raise Unreachable(f"{uri}: cannot be written: {_told(error)}") from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
