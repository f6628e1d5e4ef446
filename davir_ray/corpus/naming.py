"""Messages about a corpus that stands elsewhere in a recipe than under `corpus`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from davir_ray.config import CorpusConfig
from davir_ray.errors import CorpusError

SETTING = re.compile(rf"(?<![\w./-])corpus\.(?=({'|'.join(CorpusConfig.model_fields)})\b)")


@contextmanager
def naming(section: str) -> Iterator[None]:
    """Let errors name the settings of a section, as in `target.paths`, where they speak of those of `corpus`."""
    try:
        yield
    except CorpusError as error:
        raise type(error)(*(SETTING.sub(f"{section}.", line) for line in error.lines)) from error
