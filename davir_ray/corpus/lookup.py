"""Single rows of the corpus, found again by file and row after a run."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from davir_ray.config import CorpusConfig
from davir_ray.corpus import parquet_files
from davir_ray.corpus.paths import expand
from davir_ray.corpus.reading import Parsed, examples, read_as, read_rows
from davir_ray.corpus.split import Record, Split, kind_of
from davir_ray.errors import DavirError

Place = tuple[str, int]
"""A file of the corpus as it was listed, and a row of it, from 0."""


@dataclass(frozen=True)
class Row:
    """A row as it stands in its file now, and what it is parsed to."""

    record: Record
    parsed: Parsed


def rows_at(
    config: CorpusConfig, formats: Mapping[str, str], places: Iterable[Place]
) -> dict[Place, Row | str]:
    """Read rows again; where that cannot be, in words why. formats: the corpus format of each source."""
    by_file: dict[str, set[int]] = defaultdict(set)
    for file, row in places:
        by_file[file].add(row)
    try:
        sources = {file.path: file.source for file in expand(config.paths)}
    except (DavirError, OSError) as error:
        return {(file, row): str(error) for file, rows in by_file.items() for row in rows}
    found: dict[Place, Row | str] = {}
    for file, rows in by_file.items():
        found |= dict.fromkeys(((file, row) for row in rows), f"{file}: holds no such row any more")
        try:
            found |= dict(_read(config, formats, sources[file], file, rows))
        except KeyError:
            found |= dict.fromkeys(((file, row) for row in rows), f"{file}: is not in the corpus any more")
        except (DavirError, OSError) as error:
            found |= dict.fromkeys(((file, row) for row in rows), str(error))
    return found


def _read(
    config: CorpusConfig, formats: Mapping[str, str], source: str, file: str, rows: set[int]
) -> Iterator[tuple[Place, Row]]:
    for split in _splits(source, file, rows):
        read = read_rows(split, wanted=rows), examples(split, config, formats[source], rows)
        both = zip(*read, strict=True)
        yield from (((file, row), Row(record, parsed)) for (row, record), parsed in both if row in rows)


def _splits(source: str, file: str, rows: set[int]) -> Iterator[Split]:
    """Yield what has to be read of a file: of Parquet single rows, of others all from the first to the last."""
    kind = kind_of(file)
    if kind == "parquet":
        ends = list(accumulate(parquet_files.footer(file)[1]))
        for row in sorted(row for row in rows if ends and row < ends[-1]):
            yield Split(source, file, kind, row, 1, (sum(end <= row for end in ends),))
    elif kind is not None:
        found, first = read_as(file, kind), min(rows)
        yield Split(source, file, found, first, max(rows) + 1 - first, None)
