"""Why no row of a corpus can be used, and what would make its rows fit: said where a run would have nothing to do."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from davir_ray.config import CorpusConfig
from davir_ray.corpus.detection import settings_of
from davir_ray.corpus.formats import FORMATS, Format
from davir_ray.corpus.nearest import beside, recipe_line
from davir_ray.corpus.raw_turns import turns_in, usual_turns
from davir_ray.corpus.reading import Parsed, read_rows
from davir_ray.corpus.split import Split
from davir_ray.corpus.turns import ROLES
from davir_ray.errors import RowError
from davir_ray.schema import Status

ROWS = 1000
"""How many rows are counted."""

TRIED = 20
"""How many rows of a source are tried under other formats and names."""

ROLE_KEYS = ("speaker", "author", "sender", "participant", "name", "type", "who")
TEXT_KEYS = ("text", "message", "body", "utterance", "msg", "value", "content")

Row = Mapping[str, Any]


def no_row_fits(
    rows: Iterable[tuple[Split, Parsed]], config: CorpusConfig, formats: Mapping[str, str]
) -> list[str]:
    """Say in lines why no row parses: counts, a row of each status, and for sources of another shape what would fit.

    rows: the corpus, from its first row. formats: source -> the format that it was read as.
    """
    first = list(islice(rows, ROWS))
    splits = {split.source: split for split, _ in reversed(first)}
    lines = [f"no row of the corpus can be used; of the first {len(first):,}:", *_reasons(first)]
    misshapen = {split.source for split, one in first if one.status == Status.BAD_FORMAT}
    for source, split in splits.items():
        if source not in misshapen:
            continue
        format = FORMATS[formats[source]]
        lines.append(f"  source `{source}` is read as `{format.name}`, as in {format.example}")
        lines += _ways_out(split, config, format)
    return lines


def _reasons(rows: Sequence[tuple[Split, Parsed]]) -> Iterator[str]:
    """Count each status, with the first row that has it."""
    counts = Counter(one.status for _, one in rows)
    for status, count in counts.most_common():
        split, one = next(item for item in rows if item[1].status == status)
        yield f"  {status}: {count:,}, for instance {split.path} row {one.row}: {one.reason}"


def _ways_out(split: Split, config: CorpusConfig, format: Format) -> Iterator[str]:
    """Say which setting would make the first rows of a source parse, if one is known."""
    records = [row for _, row in islice(read_rows(split), TRIED) if isinstance(row, dict)]
    settings = settings_of(config, split.source, format)
    values = [format.select(record, settings.columns) for record in records]
    if tags := _tags([turn for one in values for turn in turns_in(usual_turns(one, settings.tags))]):
        yield f"  name its turns, if these are the two sides: {recipe_line(config, split.source, tags=tags)}"
    for name, renames in _parsing(records, settings, format):
        given = {"format": name} | ({"columns": renames} if renames else {})
        yield f"  `{name}` would fit: {recipe_line(config, split.source, **given)}"


def _tags(turns: Sequence[Row]) -> dict[str, str]:
    """Guess the tags of turns whose keys or roles are not known; empty where they are, or nothing can be guessed."""
    keys = {key for turn in turns for key in turn}
    role = next((key for key in ("role", "from", *ROLE_KEYS) if key in keys), None)
    text = next((key for key in ("content", "value", *TEXT_KEYS) if key in keys), None)
    if role is None or text is None:
        return {}
    names = dict.fromkeys(turn[role] for turn in turns if isinstance(turn.get(role), str))
    tags = {"role_tag": role} if role not in ("role", "from") else {}
    tags |= {"content_tag": text} if text not in ("content", "value") else {}
    unknown = [name for name in names if name.lower() not in ROLES]
    known = {ROLES[name.lower()] for name in names if name.lower() in ROLES}
    sides = [f"{side}_tag" for side in ("user", "assistant") if side not in known]
    return tags | (dict(zip(sides, unknown, strict=True)) if len(sides) == len(unknown) else {})


def _parsing(
    records: Sequence[Row], settings: CorpusConfig, but: Format
) -> Iterator[tuple[str, dict[str, str]]]:
    """Find the other formats that some row parses as, with the renames that they need; the nearest alone."""
    for format in FORMATS.values():
        if format is not but and any(_parses(format, record, settings) for record in records):
            yield format.name, beside(format, list(records[0]), {}).renames
            return


def _parses(format: Format, record: Row, settings: CorpusConfig) -> bool:
    near = beside(format, list(record), {})
    if near.missing:
        return False
    try:
        format.parse(usual_turns(format.select(record, near.columns), settings.tags))
    except RowError as error:
        return error.status != Status.BAD_FORMAT
    return True
