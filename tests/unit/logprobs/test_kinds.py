"""What the kinds of loss keep of an engine's numbers."""

import re
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pytest

import davir_ray.measure.kind
from davir_ray.config import EngineConfig
from davir_ray.errors import RecipeError
from davir_ray.logprobs.choice import Choice
from davir_ray.logprobs.engine import TokenSequence
from davir_ray.logprobs.kinds import APART, LOSS, TOKEN_ENTROPY, TOKEN_LOSS, TOKEN_RANK
from davir_ray.measure.kind import KINDS, implying, kind_identity, known_kind, resolve_kind, strongest
from davir_ray.models.resolve import ResolvedModel
from davir_ray.scores import resolve_score
from tests.hard_tokens import HARD

OF_LOSS = (LOSS, TOKEN_LOSS, TOKEN_RANK, TOKEN_ENTROPY)
HASH = Choice("hash", "float32", "cpu", "made up")
MODEL = ResolvedModel("", None, "m", "")
SEQUENCES = [
    TokenSequence(np.arange(5, dtype=np.int32), np.array([False, False, True, True, True])),
    TokenSequence(np.arange(9, dtype=np.int32), np.array([False] + [True] * 8)),
]


def measured(kind) -> pa.Table:
    return kind.open(HASH, EngineConfig(), MODEL, 64).measure(SEQUENCES)


def with_ids(table) -> pa.Table:
    return table.add_column(0, "sequence_id", pa.array([b"a" * 16, b"b" * 16], pa.binary(16)))


@pytest.mark.parametrize("kind", OF_LOSS, ids=lambda kind: kind.name)
def test_a_kind_gives_its_columns_and_every_kind_the_same_sums(kind):
    table = measured(kind)
    assert table.schema == kind.columns.remove(0)
    assert table.select(["loss", "num_tokens"]) == measured(LOSS)
    assert table["num_tokens"].to_pylist() == [3, 8]
    assert kind.flaws(with_ids(table)) == {}


def test_token_losses_add_up_to_the_sum_in_float64():
    table = measured(TOKEN_LOSS)
    sums = [float(np.sum(np.float64(one))) for one in table["losses"].to_pylist()]
    assert sums == table["loss"].to_pylist()
    assert min(map(min, table["losses"].to_pylist())) > 0


def test_ranks_and_entropies_stand_beside_the_losses():
    table = measured(TOKEN_ENTROPY)
    assert table["losses"] == measured(TOKEN_LOSS)["losses"]
    assert table["ranks"] == measured(TOKEN_RANK)["ranks"]
    assert all(1 <= rank <= 100 for ranks in table["ranks"].to_pylist() for rank in ranks)
    assert [len(one) for one in table["entropies"].to_pylist()] == [3, 8]


def test_each_kind_implies_those_that_hold_less():
    names = [kind.name for kind in OF_LOSS]
    for index, kind in enumerate(OF_LOSS):
        assert set(kind.implies) == set(names[:index])
        more = ("representation",) if kind is LOSS else ()
        assert implying(kind.name) == (*names[index:], *more)
    assert all(implying(name) == (name,) for name in set(KINDS) - set(names))
    assert strongest(["loss", "token_rank", "token_loss", "loss"]) == ["token_rank"]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("loss", [np.nan, None], "a loss of nan"),
        ("loss", [-1.0, None], "a loss of -1.0"),
        ("num_tokens", [0, 8], "no token that counts"),
        ("losses", [[1.0] * 3, [1.0] * 7], "7 losses of 8 tokens"),
    ],
)
def test_what_cannot_be_is_a_flaw_of_its_row(column, value, reason):
    table = measured(TOKEN_LOSS)
    place = table.column_names.index(column)
    field = table.schema.field(column)
    kept = [old if new is None else new for old, new in zip(table[column].to_pylist(), value, strict=True)]
    flaws = TOKEN_LOSS.flaws(table.set_column(place, field, pa.array(kept, field.type)))
    assert reason in flaws.values()
    assert len(flaws) == 1


def test_measurements_contradict_each_other_beyond_what_batches_round():
    table = measured(TOKEN_LOSS)
    for by, expected in ((0.9, [False, False]), (1.1, [True, True])):
        moved = np.add(table["loss"].to_numpy(), by * APART * table["num_tokens"].to_numpy())
        other = table.set_column(0, table.schema.field("loss"), pa.array(moved))
        assert TOKEN_LOSS.contradicts(table, other).tolist() == expected


def test_a_kind_of_the_user_s_own_is_named_with_the_source_of_its_module():
    assert resolve_kind("tests.hard_tokens:HARD").name == "hard_tokens"
    assert kind_identity("loss", LOSS) == "loss"
    assert kind_identity("tests.hard_tokens:HARD", HARD).startswith("tests.hard_tokens:HARD ")


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("losses", [[1.0, np.nan, 1.0], [1.0] * 8], "losses that are none"),
        ("losses", [[7.0] * 3, [1.0] * 8], "losses that add up to another sum"),
        ("ranks", [[0, 1, 2], [1] * 8], "ranks that are none"),
        ("entropies", [[1.0, np.inf, 1.0], [1.0] * 8], "entropies that are none"),
    ],
)
def test_values_that_no_token_has_are_a_flaw(column, value, reason):
    table = measured(TOKEN_ENTROPY)
    sums = pa.array([3.0, 8.0]) if "sum" in reason else table["loss"]
    table = table.set_column(0, table.schema.field("loss"), sums)
    place, field = table.column_names.index(column), table.schema.field(column)
    flaws = TOKEN_ENTROPY.flaws(table.set_column(place, field, pa.array(value, field.type)))
    assert flaws[0] == reason


class HoldsLoss:
    name, implies = "holds_loss", ("loss",)


def test_a_kind_of_the_user_s_own_may_imply_another(monkeypatch):
    monkeypatch.setattr("tests.hard_tokens.HOLDS", HoldsLoss(), raising=False)
    own = "tests.hard_tokens:HOLDS"
    assert strongest(["loss", own]) == [own]
    assert implying("loss", [own]) == (*implying("loss"), own)


def test_measurements_of_a_kind_whose_source_has_changed_are_not_judged():
    name = "tests.hard_tokens:HARD"
    assert known_kind(name, kind_identity(name, HARD)).name == "hard_tokens"
    with pytest.raises(RecipeError, match="its source has changed"):
        known_kind(name, f"{name} of-another-source")


def test_the_documented_example_of_a_kind_measures(tmp_path, monkeypatch):
    code, score = re.findall(r"^((?:    .*\n|\n)+)", davir_ray.measure.kind.__doc__, re.MULTILINE)[-2:]
    (tmp_path / "my_kinds.py").write_text(textwrap.dedent(code) + textwrap.dedent(score))
    monkeypatch.syspath_prepend(tmp_path)
    kind = resolve_kind("my_kinds:HARD")
    found = kind.open(HASH, EngineConfig(), MODEL, 64).measure(SEQUENCES)["hard"].to_pylist()
    losses = measured(TOKEN_LOSS)["losses"].to_pylist()
    assert found == [sum(one > 2 for one in row) for row in losses]
    assert resolve_score("my_kinds:HARDNESS").needs[0].kind == "my_kinds:HARD"
    sys.modules.pop("my_kinds")
