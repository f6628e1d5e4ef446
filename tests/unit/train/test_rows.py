import hashlib
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest

from davir_ray.schema import EXAMPLES, TOKENS
from davir_ray.train.pick import CoreSet, Everything
from davir_ray.train.rows import TRAINING, order, training_rows


def key(name):
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def examples(*names):
    rows = [
        {"row": i, "example_id": key(name), "source": "s", "group": "s", "status": "ok"}
        for i, name in enumerate(names)
    ]
    return pa.Table.from_pylist(rows, EXAMPLES)


def tokens(*sequences):
    """Build TOKENS from (example, view, ids, positions that count)."""
    rows = [
        {
            "example": example,
            "view": view,
            "sequence_id": key(f"{example}{view}"),
            "num_tokens": len(counts),
            "length": len(ids),
            "ids": ids,
            "scored": [position in counts for position in range(len(ids))],
        }
        for example, view, ids, counts in sequences
    ]
    return pa.Table.from_pylist(rows, TOKENS)


# As `Prepared` writes them: by length, so not in the order of the examples.
EXAMPLES_OF_THREE = examples("a", "b", "c")
TOKENS_OF_THREE = tokens(
    (1, "rejected", [20, 21, 22, 23, 24, 25], [2, 4, 5]),
    (1, "response", [20, 21, 22, 23, 24], [2, 3]),
    (0, "rejected", [10, 13, 14, 15], [3]),
    (2, "response", [30, 31, 32], [0, 2]),
    (0, "response", [10, 11, 12], [1, 2]),
    (2, "response_alone", [31, 32], [1]),
)
LOSSES = np.array([1.5, 2.5, 3.5, 4.5, 5.5, 6.5])


def rows(pick=None, losses=None, pairs=False, of=EXAMPLES_OF_THREE, tokenised=TOKENS_OF_THREE):
    table = training_rows(of, tokenised, pick or Everything(), losses, pairs)
    assert table.schema == TRAINING
    table.validate(full=True)
    return table


def chunked(table, size):
    return pa.concat_tables([table.slice(start, size) for start in range(0, len(table), size)])


def test_labels_are_the_ids_where_a_token_counts_and_ignored_elsewhere():
    table = rows()
    assert table["example_id"].to_pylist() == [key("a"), key("b"), key("c")]
    assert table["input_ids"].to_pylist() == [[10, 11, 12], [20, 21, 22, 23, 24], [30, 31, 32]]
    assert table["labels"].to_pylist() == [[-100, 11, 12], [-100, -100, 22, 23, -100], [30, -100, 32]]
    assert table["rank"].to_pylist() == [0, 0, 0]


def test_columns_of_pairs_are_empty_where_rows_are_no_pairs():
    table = rows(losses=LOSSES)
    assert [name for name in table.column_names if table[name].null_count == 3] == TRAINING.names[4:]


def test_a_pair_needs_both_sides():
    table = rows(pairs=True)
    assert table["example_id"].to_pylist() == [key("a"), key("b")]
    assert table["input_ids"].to_pylist() == [[10, 11, 12], [20, 21, 22, 23, 24]]
    assert table["rejected_input_ids"].to_pylist() == [[10, 13, 14, 15], [20, 21, 22, 23, 24, 25]]
    assert table["rejected_labels"].to_pylist() == [[-100, -100, -100, 15], [-100, -100, 22, -100, 24, 25]]
    assert table["ref_chosen_logps"].null_count == table["ref_rejected_logps"].null_count == 2


def test_frozen_log_probabilities_are_minus_the_losses_of_the_pair_s_own_sequences():
    table = rows(losses=LOSSES, pairs=True)
    assert table["ref_chosen_logps"].to_pylist() == [-5.5, -2.5]
    assert table["ref_rejected_logps"].to_pylist() == [-3.5, -1.5]


@pytest.mark.parametrize(
    ("position", "left"), [(0, ["a"]), (1, ["a"]), (2, ["b"]), (4, ["b"]), (3, ["a", "b"])]
)
@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_pair_with_a_side_that_is_not_measured_is_left_out(position, left, loss):
    losses = LOSSES.copy()
    losses[position] = loss
    assert rows(losses=losses, pairs=True)["example_id"].to_pylist() == [key(name) for name in left]


def test_only_picked_examples_are_rows_and_carry_their_rank():
    names = sorted(["a", "c"], key=key)
    rank = {"a": 9, "c": 5}
    pick = CoreSet(np.array(list(map(key, names)), dtype="S16"), np.array([rank[name] for name in names]))
    table = rows(pick)
    assert table["example_id"].to_pylist() == [key("a"), key("c")]
    assert table["rank"].to_pylist() == [9, 5]
    assert table["input_ids"].to_pylist() == [[10, 11, 12], [30, 31, 32]]


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_input_tables_in_pieces_give_the_same_rows(size, pairs):
    whole = rows(losses=LOSSES, pairs=pairs)
    before = pa.concat_tables([examples("x", "y"), EXAMPLES_OF_THREE]).slice(2)
    longer = (
        pa.concat_tables([tokens((0, "response", [1] * 9, [3])), TOKENS_OF_THREE]).combine_chunks().slice(1)
    )
    assert rows(losses=LOSSES, pairs=pairs, of=before, tokenised=longer).equals(whole)
    pieces = {"of": chunked(EXAMPLES_OF_THREE, size), "tokenised": chunked(TOKENS_OF_THREE, size)}
    assert rows(losses=LOSSES, pairs=pairs, **pieces).equals(whole)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("of", [examples(), EXAMPLES_OF_THREE])
def test_a_split_without_a_row_that_could_be_tokenised_gives_no_rows(of, measured, pairs):
    losses = np.zeros(0) if measured else None
    assert len(rows(losses=losses, pairs=pairs, of=of, tokenised=tokens())) == 0


def test_where_nothing_is_picked_there_are_no_rows():
    nothing = CoreSet(np.zeros(0, dtype="S16"), np.zeros(0, dtype=np.int64))
    assert len(rows(nothing, LOSSES, pairs=True)) == 0


def test_order_is_by_rank_then_id_and_each_example_stands_once():
    ids = np.array([b"d" * 16, b"a" * 16, b"c" * 16, b"a" * 16, b"b" * 16], dtype="S16")
    rank = np.array([1, 2, 1, 2, 3])
    assert order(ids, rank).tolist() == [2, 0, 1, 4]
    assert order(ids[:0], rank[:0]).tolist() == []
    assert order(ids[:1], rank[:1]).tolist() == [0]


def test_order_does_not_show_the_order_of_files():
    ids = np.array([letter.encode() * 16 for letter in "dcabb"], dtype="S16")
    rank = np.array([0, 0, 0, 7, 7])
    for shuffled in permutations(range(5)):
        some = list(shuffled)
        assert ids[some][order(ids[some], rank[some])].tolist() == [
            b"a" * 16,
            b"c" * 16,
            b"d" * 16,
            b"b" * 16,
        ]
