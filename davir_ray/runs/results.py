"""The files that a run is for, and whether they are there and whole.

A record holds the size and the digest of each. Their sizes are looked at whenever it is asked whether the run is
finished; their bytes by `davir store verify`.
"""

from collections.abc import Iterator, Mapping
from hashlib import blake2b

from davir_ray import storage
from davir_ray.errors import DamagedPart
from davir_ray.storage.layout import RunLayout
from davir_ray.storage.typed import Written

RESULTS = "results"
"""Where a record describes its result files."""


class ResultFile(Written):
    """A file that a run is for."""

    bytes: int
    """Size of the file in bytes."""
    digest: str
    """BLAKE2b hash of its content, 16 bytes in hex."""


Results = Mapping[str, ResultFile]
"""By name below the run's folder."""


def results_in(folder: str) -> dict[str, ResultFile]:
    """Describe the result files of a run; each is read once, a few MiB at a time."""
    paths = RunLayout(folder)
    results = (paths.scored, paths.unscored, paths.coreset, paths.exports, paths.model, paths.epochs)
    files = [file for one in results for file in storage.files_below(one)]
    digests = storage.concurrently(digest_of, [file.uri for file in files])
    names = [file.uri[len(folder.rstrip("/")) + 1 :] for file in files]
    sizes = [file.size for file in files]
    return {
        name: ResultFile(bytes=size, digest=digest)
        for name, size, digest in zip(names, sizes, digests, strict=True)
    }


def check_sizes(folder: str, results: Results) -> None:
    """Look whether all result files are there with their sizes. Raises `DamagedPart` for the first that is not.

    A listing may lag: only what does not stand in it as it should is asked for by name.
    """
    folders = [storage.join(folder, name) for name in sorted({name.split("/")[0] for name in results})]
    listed = {file.uri: file.size for some in folders for file in storage.files_below(some)}
    expected = {storage.join(folder, name): result.bytes for name, result in results.items()}
    unlike = [uri for uri, size in expected.items() if listed.get(uri) != size]
    for uri, found in zip(unlike, storage.concurrently(_size, unlike), strict=True):
        if found is None:
            raise DamagedPart(uri, "is gone")
        if found != expected[uri]:
            raise DamagedPart(uri, f"has {found:,} bytes instead of {expected[uri]:,}")


def damaged_results(folder: str, results: Results) -> Iterator[DamagedPart]:
    """Read all result files, and yield those that are not what was written."""
    uris = [storage.join(folder, name) for name in results]
    for uri, expected, found in zip(
        uris, results.values(), storage.concurrently(_digest_or_none, uris), strict=True
    ):
        if found is None:
            yield DamagedPart(uri, "is gone")
        elif found != expected.digest:
            yield DamagedPart(uri, "is not what the run wrote: its digest does not fit")


def digest_of(uri: str) -> str:
    """Name the content of a file."""
    digest = blake2b(digest_size=16)
    for piece in storage.read_pieces(uri):
        digest.update(piece)
    return digest.hexdigest()


def _digest_or_none(uri: str) -> str | None:
    try:
        return digest_of(uri)
    except FileNotFoundError:
        return None


def _size(uri: str) -> int | None:
    try:
        return storage.size_of(uri)
    except FileNotFoundError:
        return None
