"""The corpus formats: which columns each needs, what a row looks like, and which one a corpus has.

`FORMATS` stands in the order of detection: the more particular first, so that a row of instruction, output
and text is `alpaca`, and a conversation with a chosen and a rejected end is a pair.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from davir_ray.corpus import preference_formats as pairs
from davir_ray.corpus import sft_formats as sft
from davir_ray.corpus.example import Example
from davir_ray.corpus.turns import Row, check_text
from davir_ray.errors import CorpusError, UnknownFormat
from davir_ray.nearest import did_you_mean


@dataclass(frozen=True)
class Format:
    """One way to write examples as rows.

    needs: columns that must be there. one_of: of these, at least one. may_use: read if there.
    example: a literal row as JSON. looks: tells rows apart where formats share columns.
    """

    name: str
    needs: tuple[str, ...]
    example: str
    build: Callable[[Row], Example]
    may_use: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    looks: Callable[[Row], bool] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that the format reads, by the format's own names."""
        return (*self.needs, *self.one_of, *self.may_use)

    def fits(self, present: set[str]) -> bool:
        """Tell whether the columns that must be there are there."""
        return present.issuperset(self.needs) and (not self.one_of or not present.isdisjoint(self.one_of))

    def select(self, row: Row, renames: Mapping[str, str]) -> dict[str, Any]:
        """Return what the format reads of a row, under the format's names and without nulls."""
        values = {column: row.get(renames.get(column, column)) for column in self.columns}
        return {column: value for column, value in values.items() if value is not None}

    def parse(self, row: Row) -> Example:
        """Turn a row, under the format's column names, into an example. Raises `RowError`."""
        check_text(row)
        return self.build(row)


_ALL = (
    Format(
        "tokenized",
        ("input_ids",),
        '{"input_ids": [1, 5, 9, 2], "labels": [-100, -100, 9, 2]}',
        sft.tokenized,
        may_use=("attention_mask",),
        one_of=("labels", "completion_mask", "assistant_masks"),
    ),
    Format(
        "preference_sharegpt",
        ("conversations", "chosen", "rejected"),
        '{"conversations": [{"from": "human", "value": "2+2?"}], "chosen": {"from": "gpt", "value": "4"},'
        ' "rejected": {"from": "gpt", "value": "5"}}',
        pairs.preference_sharegpt,
        may_use=("system", "tools"),
    ),
    Format(
        "preference_alpaca",
        ("instruction", "chosen", "rejected"),
        '{"instruction": "Add.", "input": "2+2", "chosen": "4", "rejected": "5"}',
        pairs.preference_alpaca,
        may_use=("input", "system", "history"),
    ),
    Format(
        "preference",
        ("prompt", "chosen", "rejected"),
        '{"prompt": "2+2?", "chosen": "4", "rejected": "5"}',
        pairs.preference,
        may_use=("tools",),
        looks=pairs.looks_explicit,
    ),
    Format(
        "preference_implicit",
        ("chosen", "rejected"),
        '{"chosen": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}],'
        ' "rejected": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "5"}]}',
        pairs.preference_implicit,
        may_use=("tools",),
        looks=pairs.looks_implicit,
    ),
    Format(
        "preference_hh",
        ("chosen", "rejected"),
        '{"chosen": "\\n\\nHuman: 2+2?\\n\\nAssistant: 4",'
        ' "rejected": "\\n\\nHuman: 2+2?\\n\\nAssistant: 5"}',
        pairs.preference_hh,
        looks=pairs.looks_hh,
    ),
    Format(
        "messages",
        ("messages",),
        '{"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}',
        sft.messages,
        may_use=("tools",),
    ),
    Format(
        "prompt_completion",
        ("prompt", "completion"),
        '{"prompt": "2+2?", "completion": "4"}',
        sft.prompt_completion,
        may_use=("tools",),
    ),
    Format(
        "alpaca",
        ("instruction", "output"),
        '{"instruction": "Add.", "input": "2+2", "output": "4"}',
        sft.alpaca,
        may_use=("input", "system", "history"),
    ),
    Format(
        "sharegpt",
        (),
        '{"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]}',
        sft.sharegpt,
        may_use=("system", "tools"),
        one_of=("conversations", "conversation"),
    ),
    Format(
        "query_response",
        ("query", "response"),
        '{"query": "2+2?", "response": "4"}',
        sft.query_response,
        may_use=("system", "history"),
    ),
    Format(
        "question_answer",
        ("question", "answer"),
        '{"question": "2+2?", "answer": "4"}',
        sft.question_answer,
        may_use=("system", "history"),
    ),
    Format("text", ("text",), '{"text": "Two and two are four."}', sft.text),
)

FORMATS = {format.name: format for format in _ALL}


def detect(columns: Sequence[str], first_rows: Sequence[Row], renames: Mapping[str, str]) -> Format:
    """Choose the first format whose columns are there; rows decide between pairs that share columns.

    renames: the format's column name -> the file's. Raises `UnknownFormat`.
    """
    present = _present(columns, renames)
    fitting = [format for format in _ALL if format.fits(present)]
    if not fitting:
        raise UnknownFormat(f"no known format fits the columns {_names(columns)}; {_hint()}")
    if fitting[0].looks is None:
        return fitting[0]
    rivals = [format for format in fitting if format.looks is not None]
    looking = [format for format in rivals if _any_looks(format, first_rows, renames)]
    if len(looking) != 1:
        found = "each of these in some rows" if looking else "none of these in the first rows"
        raise UnknownFormat(
            f"the columns {_names(columns)} fit {_names([f.name for f in looking or rivals])}, and {found}; "
            "name the format in corpus.format"
        )
    return looking[0]


def _present(columns: Sequence[str], renames: Mapping[str, str]) -> set[str]:
    """Return the columns by the formats' names; one that is renamed no longer counts under its own name."""
    own = set(columns) - set(renames.values()) - set(renames)
    return own | {name for name, column in renames.items() if column in columns}


def _any_looks(format: Format, rows: Sequence[Row], renames: Mapping[str, str]) -> bool:
    return format.looks is not None and any(format.looks(format.select(row, renames)) for row in rows)


def check_columns(format: Format, columns: Sequence[str], renames: Mapping[str, str], path: str) -> None:
    """Raise `CorpusError` where a file lacks a column that the format needs."""
    if format.fits({name for name in format.columns if renames.get(name, name) in columns}):
        return
    missing = [renames.get(name, name) for name in format.needs if renames.get(name, name) not in columns]
    if not missing:
        missing = [" or ".join(renames.get(name, name) for name in format.one_of)]
    raise CorpusError(
        f"{path}: format `{format.name}` needs the column {_names(missing)}; the file has {_names(columns)}. "
        "Rename with corpus.columns, name another corpus.format, or a source of its own in corpus.paths"
    )


def check_renames(renames: Mapping[str, str], format_name: str) -> None:
    """Raise `CorpusError` for an unknown format, or a rename of a column that no format reads."""
    if format_name != "auto" and format_name not in FORMATS:
        raise CorpusError(
            f"corpus.format: `{format_name}` is not known; expected auto, {', '.join(FORMATS)}"
            + did_you_mean(format_name, FORMATS)
        )
    formats = _ALL if format_name == "auto" else (FORMATS[format_name],)
    known = {column for format in formats for column in format.columns}
    for name in renames:
        if name not in known:
            raise CorpusError(
                f"corpus.columns: `{name}` is read by no format; expected {_names(sorted(known))}"
            )


def _hint() -> str:
    formats = ", ".join(f"{f.name} ({', '.join(f.needs) or ' or '.join(f.one_of)})" for f in _ALL)
    return (
        f"known are {formats}. Rename columns with corpus.columns, for instance "
        "{query: problem, response: solution}"
    )


def _names(columns: Sequence[str]) -> str:
    return ", ".join(columns) or "(none)"
