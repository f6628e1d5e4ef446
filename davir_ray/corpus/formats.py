"""The corpus formats: which columns each needs, and what a row looks like.

`FORMATS` stands in the order of detection, the more particular first: of formats that read as many of a corpus's
columns, the first is taken (detection.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from davir_ray.corpus import preference_formats as pairs
from davir_ray.corpus import sft_formats as sft
from davir_ray.corpus.example import Example
from davir_ray.corpus.refused import CONTEXT, LABELS, REJECTED, SIDES, WEIGHTS, check_label, check_refused
from davir_ray.corpus.turns import MEDIA, Row, check_text


@dataclass(frozen=True)
class Format:
    """One way to write examples as rows.

    needs: columns that must be there. one_of: of these, at least one. may_use: obeyed if there.
    is_conversation: whether rows are turns of a chat. example: a literal row as JSON. looks: tells rows apart where
    formats share columns. Columns that the format `refuses` make a row unusable; all others are not read.
    """

    name: str
    needs: tuple[str, ...]
    example: str
    build: Callable[[Row], Example]
    may_use: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    looks: Callable[[Row], bool] | None = None
    is_conversation: bool = True

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """All columns that the format obeys, by the format's own names."""
        return (*self.needs, *self.one_of, *self.may_use)

    @cached_property
    def refuses(self) -> tuple[str, ...]:
        """Columns that change what a row means, and that the format cannot obey."""
        meaningful = (
            *MEDIA,
            *WEIGHTS,
            *REJECTED,
            "kto_tag",
            *((*SIDES, *CONTEXT) if self.is_conversation else ()),
        )
        return tuple(column for column in meaningful if column not in self.columns)

    def fits(self, present: set[str]) -> bool:
        """Tell whether the columns that must be there are there."""
        return present.issuperset(self.needs) and (not self.one_of or not present.isdisjoint(self.one_of))

    def sources(self, renames: Mapping[str, str]) -> dict[str, str]:
        """Map what is looked at in a row, by the format's names, to the names in the files.

        A column that another name is renamed to does not count under its own name.
        """
        named = {column: renames.get(column, column) for column in self.columns}
        taken = {own for column, own in named.items() if column in renames}
        kept = {column: own for column, own in named.items() if column in renames or own not in taken}
        return kept | {column: column for column in self.refuses if column not in taken}

    def select(self, row: Row, renames: Mapping[str, str]) -> dict[str, Any]:
        """Return what the format looks at in a row, under the format's names and without nulls."""
        return picked(row, self.sources(renames))

    def parse(self, row: Row) -> Example:
        """Turn a row, under the format's column names, into an example. Raises `RowError`."""
        check_refused(row, self.refuses)
        check_text(row)
        if "label" in self.columns:
            check_label(row)
        return self.build({column: value for column, value in row.items() if column in self.columns})


def picked(row: Row, sources: Mapping[str, str]) -> dict[str, Any]:
    """Return what stands in a row under the names in the files, by the names of a format and without nulls."""
    values = {column: row.get(own) for column, own in sources.items()}
    return {column: value for column, value in values.items() if value is not None}


CHAT = ("system", "tools", "functions", "chat_template_kwargs")
PROMPTED = ("history", *CHAT)
"""What is obeyed beside a prompt."""


_ALL = (
    Format(
        "tokenized",
        ("input_ids",),
        '{"input_ids": [1, 5, 9, 2], "labels": [-100, -100, 9, 2]}',
        sft.tokenized,
        may_use=("attention_mask", "position_ids", "seq_lengths"),
        one_of=("labels", "completion_mask", "assistant_masks"),
        is_conversation=False,
    ),
    Format(
        "preference_sharegpt",
        ("conversations", "chosen", "rejected"),
        '{"conversations": [{"from": "human", "value": "2+2?"}], "chosen": {"from": "gpt", "value": "4"},'
        ' "rejected": {"from": "gpt", "value": "5"}}',
        pairs.preference_sharegpt,
        may_use=CHAT,
    ),
    Format(
        "preference_alpaca",
        ("instruction", "chosen", "rejected"),
        '{"instruction": "Add.", "input": "2+2", "chosen": "4", "rejected": "5"}',
        pairs.preference_alpaca,
        may_use=("input", *PROMPTED),
    ),
    Format(
        "preference",
        ("prompt", "chosen", "rejected"),
        '{"prompt": "2+2?", "chosen": "4", "rejected": "5"}',
        pairs.preference,
        may_use=PROMPTED,
        looks=pairs.looks_explicit,
    ),
    Format(
        "preference_implicit",
        ("chosen", "rejected"),
        '{"chosen": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}],'
        ' "rejected": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "5"}]}',
        pairs.preference_implicit,
        may_use=CHAT,
        looks=pairs.looks_implicit,
    ),
    Format(
        "preference_hh",
        ("chosen", "rejected"),
        '{"chosen": "\\n\\nHuman: 2+2?\\n\\nAssistant: 4",'
        ' "rejected": "\\n\\nHuman: 2+2?\\n\\nAssistant: 5"}',
        pairs.preference_hh,
        may_use=CHAT,
        looks=pairs.looks_hh,
    ),
    Format(
        "preference_messages",
        ("messages",),
        '{"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}],'
        ' "rejected_response": "5"}',
        pairs.preference_messages,
        may_use=CHAT,
        one_of=pairs.OTHER_ENDINGS,
    ),
    Format(
        "messages",
        ("messages",),
        '{"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}',
        sft.messages,
        may_use=(*CHAT, *LABELS),
    ),
    Format(
        "prompt_completion",
        ("prompt", "completion"),
        '{"prompt": "2+2?", "completion": "4"}',
        sft.prompt_completion,
        may_use=(*PROMPTED, *LABELS),
    ),
    Format(
        "alpaca",
        ("instruction", "output"),
        '{"instruction": "Add.", "input": "2+2", "output": "4"}',
        sft.alpaca,
        may_use=("input", *PROMPTED, *LABELS),
    ),
    Format(
        "sharegpt",
        (),
        '{"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]}',
        sft.sharegpt,
        may_use=(*CHAT, *LABELS),
        one_of=("conversations", "conversation"),
    ),
    Format(
        "query_response",
        ("query", "response"),
        '{"query": "2+2?", "response": "4"}',
        sft.query_response,
        may_use=(*PROMPTED, *LABELS),
    ),
    Format(
        "question_answer",
        ("question", "answer"),
        '{"question": "2+2?", "answer": "4"}',
        sft.question_answer,
        may_use=(*PROMPTED, *LABELS),
    ),
    Format("text", ("text",), '{"text": "Two and two are four."}', sft.text, is_conversation=False),
)

FORMATS = {format.name: format for format in _ALL}


def is_paired(format: str) -> bool:
    """Tell whether a format, by its name, is one of preference pairs."""
    return format.startswith("preference")
