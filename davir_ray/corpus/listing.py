"""Which files make up the corpus, and how they are split: decided once, from footers and first rows."""

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import groupby, islice
from typing import Any

from davir_ray.config import CorpusConfig
from davir_ray.config.nearest import did_you_mean
from davir_ray.corpus import arrow_files, csv_files, json_files, parquet_files
from davir_ray.corpus.detection import check_columns, check_renames, check_targets, detect
from davir_ray.corpus.formats import FORMATS, Format, is_paired
from davir_ray.corpus.naming import naming
from davir_ray.corpus.nearest import names_of, remedy
from davir_ray.corpus.paths import CorpusFile, expand
from davir_ray.corpus.raw_turns import check_tags
from davir_ray.corpus.reading import read_rows
from davir_ray.corpus.split import Kind, Split
from davir_ray.errors import CorpusError, UnknownFormat, UnreadableFile

ROWS_PER_SPLIT = 50_000
"""The most rows of a Parquet split. A larger row group is read by several, each decoding what is before."""

THREADS = 16
FILES_AT_ONCE = 256
DETECTION_ROWS = 32
DETECTION_FILES = 3


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """The corpus as it stood.

    formats: source name -> format name. digests: one a split, equal for the same rows of the same file (path, size,
    time or checksum), understood in the same way.
    """

    splits: tuple[Split, ...]
    bad_files: tuple[BadFile, ...]
    formats: dict[str, str]
    digests: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Name the corpus as a whole."""
        return blake2b("".join(self.digests).encode(), digest_size=16).hexdigest()

    @property
    def has_pairs(self) -> bool:
        """Whether a source holds preference pairs."""
        return any(map(is_paired, self.formats.values()))


@dataclass(frozen=True)
class _Looked:
    """What footer or first rows say of a file. `rows` None: not counted."""

    file: CorpusFile
    kind: Kind
    columns: tuple[str, ...]
    rows: int | None
    row_groups: tuple[int, ...] = ()


def list_corpus(config: CorpusConfig, limit: int | None = None, section: str = "corpus") -> Listing:
    """List the splits of a corpus by source and path, or of its first `limit` rows. section: of the recipe.

    Raises `CorpusError` for a path without files, a missing column or an empty corpus, `UnknownFormat`, and
    `UnreadableFile` unless such files are to be skipped.
    """
    with naming(section):
        return _list(config, limit, section)


def _list(config: CorpusConfig, limit: int | None, section: str) -> Listing:
    for source in config.paths:
        check_renames(config.of(source), source)
    looked = list(_look_at_all(expand(config.paths), limit))
    bad = tuple(item for item in looked if isinstance(item, BadFile))
    if bad and config.on_bad_file == "error":
        way = (
            "every row of a target counts"
            if section == "target"
            else f"{section}.on_bad_file: skip leaves them out"
        )
        raise UnreadableFile(
            f"{section}: {len(bad)} of its files cannot be read ({way})",
            *(f"  {item.reason}" for item in bad[:20]),
        )
    files = [item for item in looked if isinstance(item, _Looked) and item.rows != 0]
    if not files:
        raise CorpusError(
            f"{section}: holds no rows: " + ", ".join(p for ps in config.paths.values() for p in ps)
        )
    splits = tuple(_first_rows((split for file in files for split in _splits(file)), limit))
    formats = _formats(files, config)
    facts = {(item.file.source, item.file.path): item.file for item in files}
    digests = tuple(_digest(facts[one.source, one.path], one, formats[one.source]) for one in splits)
    return Listing(splits, bad, formats, digests)


def _look_at_all(files: Sequence[CorpusFile], limit: int | None) -> Iterator[_Looked | BadFile]:
    """Look at files side by side, in order, and at no more than the limit asks for."""
    rows = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(files), FILES_AT_ONCE):
            for item in pool.map(partial(_look, limit=limit), files[start : start + FILES_AT_ONCE]):
                yield item
                rows += (item.rows or 0) if isinstance(item, _Looked) else 0
            if limit is not None and rows >= limit:
                return


def _look(file: CorpusFile, limit: int | None) -> _Looked | BadFile:
    try:
        return _look_parquet(file) if file.kind == "parquet" else _look_streamed(file, limit)
    except UnreadableFile as error:
        return BadFile(file.path, str(error))


def _look_parquet(file: CorpusFile) -> _Looked:
    schema, groups = parquet_files.footer(file.path)
    return _Looked(file, "parquet", tuple(schema.names), sum(groups), groups)


def _look_streamed(file: CorpusFile, limit: int | None) -> _Looked:
    kind, rows = file.kind, None
    if kind == "csv":
        columns = csv_files.look(file.path)
    elif kind == "arrow":
        columns = arrow_files.look(file.path)
    else:
        kind, columns, rows = json_files.look(file.path, kind)
    if rows is None and limit is not None:
        rows = _count_rows(Split(file.source, file.path, kind, 0, limit, None))
    return _Looked(file, kind, columns, rows)


def _count_rows(split: Split) -> int:
    """Count the rows of a file, up to as many as the split has."""
    if split.kind == "jsonl":  # its lines need not be parsed
        return json_files.count_rows(split.path, split.num_rows or 0)
    return sum(1 for _ in read_rows(split))


def _splits(looked: _Looked) -> Iterator[Split]:
    file = looked.file
    if looked.kind != "parquet":
        yield Split(file.source, file.path, looked.kind, 0, looked.rows, None)
        return
    for groups, first, rows in _group_ranges(looked.row_groups):
        for start in range(0, rows, ROWS_PER_SPLIT):
            count = min(ROWS_PER_SPLIT, rows - start)
            yield Split(file.source, file.path, "parquet", first + start, count, groups)


def _group_ranges(sizes: Sequence[int]) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """Join neighbouring row groups up to the size of a split: (row groups, first row, rows)."""
    groups: list[int] = []
    first = rows = 0
    for index, size in enumerate(sizes):
        if groups and rows + size > ROWS_PER_SPLIT:
            yield tuple(groups), first, rows
            groups, first, rows = [], first + rows, 0
        groups.append(index)
        rows += size
    yield tuple(groups), first, rows


def _first_rows(splits: Iterator[Split], limit: int | None) -> Iterator[Split]:
    left = limit
    for split in splits:
        if left is None or split.num_rows is None:
            yield split
        elif left > 0:
            yield replace(split, num_rows=min(left, split.num_rows))
            left -= min(left, split.num_rows)


def _formats(files: Sequence[_Looked], config: CorpusConfig) -> dict[str, str]:
    """Choose the format of each source, and check that every file has its columns."""
    sources = {
        source: _with_named(list(members), config.of(source).columns.values())
        for source, members in groupby(files, key=lambda looked: looked.file.source)
    }
    columns_of = {source: _columns(looked) for source, looked in sources.items()}
    formats = {}
    for source, looked in sources.items():
        check_targets(config, columns_of, source)
        formats[source] = _format(looked, config, source)
        for item in looked:
            _check_file(item, config, FORMATS[formats[source]])
            _check_labels(item, config)
    return formats


def _columns(looked: Sequence[_Looked]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for item in looked for name in item.columns))


def _with_named(looked: list[_Looked], names: Iterable[str]) -> list[_Looked]:
    """Look at all rows of a source's JSON lines files where no first row has a column that the recipe names."""
    return looked if set(names) <= set(_columns(looked)) else [_whole(item) for item in looked]


def _whole(looked: _Looked) -> _Looked:
    """Look at all rows of a JSON lines file; one that is damaged further down is found later."""
    if looked.kind != "jsonl":
        return looked
    try:
        return replace(looked, columns=json_files.columns(looked.file.path))
    except UnreadableFile:
        return looked


def _format(looked: Sequence[_Looked], config: CorpusConfig, source: str) -> str:
    """Return the format that the recipe names for a source, or the one that its columns and first rows have."""
    settings, path = config.of(source), looked[0].file.path
    names = [*settings.columns.values(), *(name for format in FORMATS.values() for name in format.columns)]
    rows = [row for item in looked[:DETECTION_FILES] for row in _first_records(item, names)]
    try:
        check_tags(settings.tags, rows)
        if settings.format != "auto":
            return settings.format
        return detect(_columns(looked), rows, settings.columns, settings.tags).name
    except UnknownFormat as error:
        whole = [_whole(item) for item in looked]
        if _columns(whole) != _columns(looked):
            return _format(whole, config, source)
        raise UnknownFormat(f"{path}: {error}; {remedy(_columns(looked), config, source)}") from error
    except CorpusError as error:
        raise CorpusError(f"{path}: {error}") from error


def _check_file(looked: _Looked, config: CorpusConfig, format: Format) -> None:
    """Check that a file has the columns that its format needs, in its first rows or in later ones."""
    source, path = looked.file.source, looked.file.path
    try:
        check_columns(format, looked.columns, config, source, path)
    except CorpusError:
        check_columns(format, _whole(looked).columns, config, source, path)


def _first_records(looked: _Looked, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Read a few rows of a file; one that is damaged behind a good footer tells nothing here, and is found later."""
    try:
        records = list(islice(read_rows(next(_splits(looked)), columns, DETECTION_ROWS), DETECTION_ROWS))
    except UnreadableFile:
        return []
    return [record for _, record in records if isinstance(record, dict)]


def _check_labels(looked: _Looked, config: CorpusConfig) -> None:
    group = None if config.group_by == "source" else config.group_by
    for key, column in (("id", config.id), ("source_by", config.source_by), ("group_by", group)):
        if column and not _has(looked, column) and not _has(found := _whole(looked), column):
            raise CorpusError(
                f"{looked.file.path}: no row has a column `{column}`, which corpus.{key} names"
                f"{did_you_mean(column, found.columns)}; the file has {names_of(found.columns)}"
            )


def _has(looked: _Looked, path: str) -> bool:
    return path in looked.columns or path.split(".")[0] in looked.columns


def _digest(file: CorpusFile, split: Split, format: str) -> str:
    text = json.dumps([asdict(file), asdict(split), format], sort_keys=True)
    return blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()
