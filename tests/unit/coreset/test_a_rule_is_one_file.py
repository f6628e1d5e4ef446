"""What a new selection rule takes: a class. All that serves rules asks it for what it needs."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pytest
from pydantic import Field, TypeAdapter, ValidationError

from davir_ray.coreset.rules import FractionRule, KeepSourcesRule, NearDuplicatesRule, SelectRule
from davir_ray.coreset.rules.choose import choose, rule_names, token_columns
from davir_ray.coreset.rules.rule import Mask, Rows, Rule, TokenColumn
from davir_ray.coreset.summary import summarise
from davir_ray.schema import SCORED, Need, Status, View


class FirstTokenRule(Rule):
    """Keep the best row of each first token."""

    cuts: ClassVar[Literal["groups"]] = "groups"
    needs: ClassVar[tuple[Need, ...]] = (Need("loss", "reference", View.RESPONSE),)

    type: Literal["first_token"] = "first_token"
    any_number_of: int = Field(0, ge=0)
    """A token that any number of rows may begin with."""

    @property
    def token_column(self) -> TokenColumn:
        return TokenColumn("first_token", 4, lambda ids: [row[:1].tobytes() for row in ids])

    def keep(self, rows: Rows) -> Iterator[Mask]:
        seen: set[int] = set()
        for table in rows("first_token"):
            tokens = np.frombuffer(b"".join(table["first_token"].to_pylist()), dtype=np.int32)
            yield np.array([self._is_new(token, seen) for token in tokens.tolist()], dtype=bool)

    def _is_new(self, token: int, seen: set[int]) -> bool:
        is_new = token not in seen
        seen |= {token} - {self.any_number_of}
        return is_new


TOKENS = (1, 1, 2, 0, 0, 2, 3)
RULE = FirstTokenRule()


def scan(columns):
    (made,) = token_columns([RULE, RULE, FractionRule(fraction=0.5)])
    values = made.make([np.array([token, 9], dtype=np.int32) for token in TOKENS])
    count = len(TOKENS)
    table = pa.table({"source": ["s"] * count, made.name: values, "rank": range(1, count + 1)})
    yield from (table.select(list(columns)).slice(start, 3) for start in (0, 3, 6))


def kept(rules):
    return np.concatenate([one.selected for one in choose(rules, scan)]).tolist()


def test_a_rule_of_one_class_chooses_rows_beside_the_others():
    assert kept([RULE]) == [True, False, True, True, True, False, True]
    assert kept([RULE, FractionRule(fraction=0.5)]) == [True, False, True, False, False, False, False]
    assert kept([RULE, KeepSourcesRule(sources=("s",))]) == [True] * len(TOKENS)


def test_the_list_with_the_class_in_it_reads_the_rule_from_a_recipe():
    rules = TypeAdapter(tuple[Annotated[SelectRule | FirstTokenRule, Field(discriminator="type")], ...])
    read = rules.validate_python([{"type": "first_token"}, {"type": "count", "count": 2}])
    assert read[0] == RULE
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        rules.validate_python([{"type": "first_token", "any_number_of": -1}])


def test_the_closing_table_counts_what_it_left_out_and_shows_both_sides_of_its_cut():
    keep = kept([RULE])
    rows = [
        {"example_id": bytes(16), "file": "a", "row": at, "source": "s", "group": "", "status": Status.OK}
        | {"num_tokens": 1, "score": -at, "rank": at + 1, "selected": keep[at]}
        | {"dropped_by": None if keep[at] else rule_names([RULE])[0]}
        for at in range(len(TOKENS))
    ]
    table = pa.Table.from_pylist(rows, schema=SCORED)
    summary = summarise(lambda columns: iter([table.select(list(columns))]), [RULE], shown=1)
    assert summary.dropped_by == {"0:first_token": 2}
    assert summary.dropped_groups == {}
    assert [(row.rank, row.selected) for row in summary.borderline] == [(2, False)]


def test_near_duplicates_of_two_kinds_have_a_column_each():
    rules = [NearDuplicatesRule(), NearDuplicatesRule(threshold=0.5), NearDuplicatesRule(num_perm=64)]
    assert [column.size for column in token_columns(rules)] == [512, 256]
