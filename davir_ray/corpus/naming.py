"""Messages about a corpus that stands elsewhere in a recipe than under `corpus`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from davir_ray.errors import CorpusError

SETTING = re.compile(r"(?<![\w./-])corpus\.(?=(paths|sources|format|columns|tags|on_bad_file)\b)")


@contextmanager
def naming(section: str) -> Iterator[None]:
    """Let errors name the settings of a section, as in `target.paths`, where they speak of those of `corpus`."""
    try:
        yield
    except CorpusError as error:
        raise type(error)(*(SETTING.sub(f"{section}.", line) for line in error.lines)) from error
