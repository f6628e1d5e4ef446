"""Which format a corpus has, and under which of the format's names its columns are read."""

from collections.abc import Mapping, Sequence

from davir_ray.config import CorpusConfig, TagsConfig
from davir_ray.config.nearest import did_you_mean
from davir_ray.corpus.formats import FORMATS, Format
from davir_ray.corpus.nearest import names_of, recipe_lines, remedy
from davir_ray.corpus.raw_turns import usual_turns
from davir_ray.corpus.turns import Row, describe
from davir_ray.errors import CorpusError, UnknownFormat

LLAMA_FACTORY = (
    {"prompt": "instruction", "query": "input", "response": "output"},
    {"messages": "conversations"},
)
"""LLaMA-Factory's names of columns -> ours, for its alpaca and its sharegpt formatting; its other names are ours."""


def renames_for(format: Format, renames: Mapping[str, str]) -> dict[str, str] | None:
    """Return `corpus.columns` under the format's own names; None where the format does not read all of it.

    Names are LLaMA-Factory's only where the format does not read all of them as its own.
    """
    readings = (_reading(format, renames, meanings) for meanings in ({}, *LLAMA_FACTORY))
    return next((understood for understood, unread in readings if not unread), None)


def _reading(
    format: Format, renames: Mapping[str, str], meanings: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Return the renames by these meanings, and the names that the format does not read, or would read twice."""
    ours = {name: meanings.get(name, name) for name in renames}
    unread = [n for n, our in ours.items() if our not in format.columns or (our != n and our in renames)]
    return {ours[name]: column for name, column in renames.items()}, unread


def _unread(format: Format, renames: Mapping[str, str]) -> list[str]:
    """List the names of renames that a format does not read, by the meaning that leaves out the fewest."""
    return min((_reading(format, renames, meanings)[1] for meanings in ({}, *LLAMA_FACTORY)), key=len)


def settings_of(config: CorpusConfig, source: str, format: Format) -> CorpusConfig:
    """Return the settings that hold for a source, with `columns` under the names of its format."""
    settings = config.of(source)
    return settings.model_copy(update={"columns": renames_for(format, settings.columns) or {}})


def detect(
    columns: Sequence[str],
    first_rows: Sequence[Row],
    renames: Mapping[str, str],
    tags: TagsConfig | None = None,
) -> Format:
    """Choose the format that reads every rename and most of the columns; the first of `FORMATS` where several do.

    Rows decide between pairs that share columns. renames: `corpus.columns`. Raises `UnknownFormat`.
    """
    read = {format: _read(format, columns, renames) for format in FORMATS.values()}
    fitting = [format for format, names in read.items() if format.fits(names)]
    if not fitting:
        raise UnknownFormat(f"no known format fits the columns {names_of(columns)}")
    best = max(fitting, key=lambda format: (_reads_as_given(format, renames), len(read[format])))
    if best.looks is None:
        return best
    rivals = [format for format in fitting if format.looks is not None]
    looking = [one for one in rivals if _any_looks(one, first_rows, renames, tags or TagsConfig())]
    if len(looking) == 1:
        return looking[0]
    names = names_of([format.name for format in looking or rivals])
    found = (
        "each of these in some rows" if looking else f"none of these in the first rows{_shown(first_rows)}"
    )
    raise UnknownFormat(
        f"the columns {names_of(columns)} fit {names}, and {found}; name the format in corpus.format"
    )


def _read(format: Format, columns: Sequence[str], renames: Mapping[str, str]) -> set[str]:
    """Return the format's names of the columns that it would read; none where it does not read every rename."""
    understood = renames_for(format, renames)
    return set() if understood is None else _present(columns, understood) & set(format.columns)


def _reads_as_given(format: Format, renames: Mapping[str, str]) -> bool:
    """Tell whether a format reads the renames by its own names: `query` is LLaMA-Factory's only where it must be."""
    return renames.keys() <= set(format.columns)


def _present(columns: Sequence[str], renames: Mapping[str, str]) -> set[str]:
    """Return the columns by the formats' names; one that is renamed no longer counts under its own name."""
    own = set(columns) - set(renames.values()) - set(renames)
    return own | {name for name, column in renames.items() if column in columns}


def _any_looks(format: Format, rows: Sequence[Row], renames: Mapping[str, str], tags: TagsConfig) -> bool:
    understood = renames_for(format, renames) or {}
    return format.looks is not None and any(
        format.looks(usual_turns(format.select(row, understood), tags)) for row in rows
    )


def _shown(rows: Sequence[Row]) -> str:
    """Show what stands in a pair."""
    sides = next((row for row in rows if row.get("chosen") is not None), None)
    return "" if sides is None else f" (`chosen` is {describe(sides['chosen'])})"


def check_renames(settings: CorpusConfig, source: str) -> None:
    """Raise `CorpusError` for an unknown format, or renames that no format, or not the one that is named, reads.

    settings: those of the source, see `CorpusConfig.of`.
    """
    if settings.format != "auto" and settings.format not in FORMATS:
        known = f"{did_you_mean(settings.format, FORMATS)}; expected auto, {', '.join(FORMATS)}"
        raise CorpusError(f"corpus.format: `{settings.format}` of source `{source}` is not known{known}")
    formats = list(FORMATS.values()) if settings.format == "auto" else [FORMATS[settings.format]]
    near = min(formats, key=lambda format: len(_unread(format, settings.columns)))
    if unread := _unread(near, settings.columns):
        raise CorpusError(f"corpus.columns of source `{source}`: {_unread_name(unread[0], settings, near)}")


def _unread_name(name: str, settings: CorpusConfig, near: Format) -> str:
    """Say that a name of `corpus.columns` is not read: by the format that is named, by any, or beside the others."""
    every = dict.fromkeys(column for format in FORMATS.values() for column in format.columns)
    if settings.format != "auto":
        said, expected = f"`{name}` is not read by format `{near.name}`", near.columns
    elif name not in every:
        said, expected = f"`{name}` is read by no format", tuple(every)
    else:
        said = f"no format reads {names_of(settings.columns)} together; `{near.name}` does not read `{name}`"
        expected = near.columns
    return f"{said}{did_you_mean(name, expected)}; expected {names_of(expected)}"


def check_targets(config: CorpusConfig, columns_of: Mapping[str, Sequence[str]], source: str) -> None:
    """Raise `CorpusError` where renames name a column that a source does not have.

    columns_of: source -> the columns of all its files.
    """
    renames, columns = config.of(source).columns, columns_of[source]
    missing = next((name for name, column in renames.items() if column not in columns), None)
    if missing is None:
        return
    wrong = renames[missing]
    raise CorpusError(
        f"corpus.columns: {missing}: {wrong}: source `{source}` has no column `{wrong}`{did_you_mean(wrong, columns)}; "
        f"it has {names_of(columns)}; {_way_out(config, columns_of, source)}"
    )


def _way_out(config: CorpusConfig, columns_of: Mapping[str, Sequence[str]], source: str) -> str:
    """Say how renames fit: they may be those of another source."""
    renames = config.of(source).columns
    others = [other for other, theirs in columns_of.items() if set(renames.values()) <= set(theirs)]
    if others:
        lines = {other: {"columns": dict(renames)} for other in others}
        return f"they fit {names_of(others)} alone: {recipe_lines(lines)} in place of corpus.columns"
    return remedy(columns_of[source], config, source)


def _columns(names: Sequence[str]) -> str:
    return f"column{'' if len(names) == 1 else 's'} {names_of(names)}"


def check_columns(
    format: Format, columns: Sequence[str], config: CorpusConfig, source: str, path: str
) -> None:
    """Raise `CorpusError` where a file of a source lacks a column that the source's format needs."""
    renames = settings_of(config, source, format).columns
    present = _present(columns, renames)
    if format.fits(present):
        return
    missing = [renames.get(name, name) for name in format.needs if name not in present]
    if not missing:
        missing = [" or ".join(renames.get(name, name) for name in format.one_of)]
    raise CorpusError(
        f"{path}: format `{format.name}` needs the {_columns(missing)}; the file has {names_of(columns)}. "
        f"For these columns {remedy(columns, config, source)}. Files that differ are sources of their own in "
        "corpus.paths, with a format and columns each in corpus.sources"
    )
