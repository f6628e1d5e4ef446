"""The corpus formats: which columns each needs, and what a row looks like.

`FORMATS` stands in the order of detection, the more particular first: of formats that read as many of a corpus's
columns, the first is taken (detection.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from davir_ray.corpus import preference_formats as pairs
from davir_ray.corpus import sft_formats as sft
from davir_ray.corpus.example import Example
from davir_ray.corpus.turns import Row, check_text


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
        """Return what the format reads of a row, under the format's names and without nulls.

        A column that is read under another name is not read under its own as well.
        """
        names = [name for name in self.columns if name in renames or name not in renames.values()]
        values = {name: row.get(renames.get(name, name)) for name in names}
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
