"""A folder that exists only when it is whole: a start that was killed leaves nothing to be trusted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to write into; it becomes `folder` when the block ends without an error.

    Where another start was faster, its folder stays: both made the same.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        partial = Path(temporary, folder.name)
        partial.mkdir()
        yield partial
        if not folder.exists():
            partial.rename(folder)
