"""What becomes of state that is damaged: one rule, for everything that lies in a store or a run.

- **What can be made again is made again**, and a line says so. A part, a plan or a record that cannot be read, or that
  contradicts what it should be, is set aside: renamed, so that no listing takes it for what it was, and made anew.
- **Of a log, a torn last line is dropped.**
- **What cannot be made again is an error of ours** (exit code 6): the file, what it means, and what to do. The lines of
  nights.jsonl are such, and the recipe of a run that is to be resumed without its recipe file.

So everything says what it is, and whoever reads it checks that: parts by a label in their metadata (store/labels.py),
small JSON files by a seal (sealed.py), results by their digests in the record (results.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from davir_ray import storage
from davir_ray.errors import DamagedPart
from davir_ray.progress import warn

ASIDE = ".damaged"
"""What the name of a file ends with that was set aside."""


def set_aside(damage: DamagedPart) -> None:
    """Rename a damaged file, if it is there at all, and say so."""
    try:
        storage.rename(damage.uri, damage.uri + ASIDE)
    except FileNotFoundError:
        return warn(f"made again: {damage}")
    warn(f"set aside, and made again: {damage}")
    folder, name = damage.uri.rsplit("/", 1)
    storage.await_listing(lambda: damage.uri not in storage.list_files(folder, name), damage.uri)


@contextmanager
def expecting(uri: str) -> Iterator[None]:
    """Read what was written before: that it is gone is damage. Raises `DamagedPart`."""
    try:
        yield
    except FileNotFoundError as error:
        raise DamagedPart(uri, "is gone") from error
