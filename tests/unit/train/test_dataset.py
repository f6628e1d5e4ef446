import hashlib
from itertools import permutations

import pyarrow as pa
import pytest
import torch

from davir_ray import storage
from davir_ray.train.dataset import PairCollator, fetch_rows, open_rows
from davir_ray.train.rows import TRAINING


def row(name, rank=0, **pair):
    example_id = hashlib.blake2b(name.encode(), digest_size=16).digest()
    ids = [ord(letter) for letter in name]
    return {"example_id": example_id, "rank": rank, "input_ids": ids, "labels": [-100, *ids[1:]]} | pair


PAIR = {
    "rejected_input_ids": [1, 2, 3],
    "rejected_labels": [-100, 2, 3],
    "ref_chosen_logps": -1.5,
    "ref_rejected_logps": -2.5,
}


def write_parts(folder, *parts):
    for index, rows in enumerate(parts):
        storage.write_table(f"{folder}/{index:05d}.parquet", pa.Table.from_pylist(rows, TRAINING))


def opened(folder, *parts):
    write_parts(folder, *parts)
    fetch_rows(str(folder), folder / "rows.arrow")
    return open_rows(folder / "rows.arrow")


def test_rows_come_by_rank_whichever_part_holds_them(tmp_path):
    parts = [[row("fourth", 40), row("first", 1)], [row("third", 30)], [row("second", 2), row("fifth", 50)]]
    for shuffled in permutations(range(3)):
        dataset = opened(tmp_path / str(shuffled), *(parts[index] for index in shuffled))
        texts = ["".join(map(chr, ids)) for ids in dataset["input_ids"]]
        assert texts == ["first", "second", "third", "fourth", "fifth"]
        assert dataset[1] == {"input_ids": list(b"second"), "labels": [-100, *b"econd"]}


def test_rows_of_one_rank_come_in_the_same_order_from_any_parts(tmp_path):
    rows = [row(name) for name in ("one", "two", "three", "four", "five")]
    one = opened(tmp_path / "1", rows[:2], rows[2:])
    other = opened(tmp_path / "2", rows[:1:-1], rows[1::-1])
    assert one[:] == other[:]
    by_id = sorted(rows, key=lambda row: row["example_id"])
    assert one["input_ids"][:] == [one["input_ids"] for one in by_id]


def test_a_repeated_example_stands_once(tmp_path):
    dataset = opened(tmp_path, [row("one", 1), row("two", 2)], [row("one", 1)])
    assert [bytes(ids) for ids in dataset["input_ids"]] == [b"one", b"two"]


@pytest.mark.parametrize(
    ("pair", "columns"),
    [
        ({}, ["input_ids", "labels"]),
        (PAIR, TRAINING.names[2:]),
        (PAIR | {"ref_chosen_logps": None, "ref_rejected_logps": None}, TRAINING.names[2:6]),
    ],
)
def test_columns_without_values_are_left_out(tmp_path, pair, columns):
    dataset = opened(tmp_path, [row("one", **pair), row("two", **pair)])
    assert dataset.column_names == columns


def test_a_column_with_any_value_is_kept(tmp_path):
    assert opened(tmp_path, [row("one"), row("two", **PAIR)]).column_names == TRAINING.names[2:]


def test_what_was_written_is_what_the_trainer_reads(tmp_path):
    pair = row("pair", **PAIR)
    assert opened(tmp_path, [pair])[0] == {name: pair[name] for name in TRAINING.names[2:]}


TWO = [
    {
        "input_ids": [5, 6, 7],
        "labels": [-100, 6, 7],
        "rejected_input_ids": [5, 8],
        "rejected_labels": [-100, 8],
        "ref_chosen_logps": -1.5,
        "ref_rejected_logps": -2.5,
    },
    {
        "input_ids": [5, 9],
        "labels": [-100, 9],
        "rejected_input_ids": [5, 6, 0, 7],
        "rejected_labels": [-100, -100, 0, 7],
        "ref_chosen_logps": -3.5,
        "ref_rejected_logps": -4.5,
    },
]


def test_pairs_are_collated_with_the_chosen_sides_first_and_padded_on_the_right():
    batch = PairCollator(pad_token_id=5)(TWO)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 5], [5, 9, 5, 5], [5, 8, 5, 5], [5, 6, 0, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch["completion_mask"].tolist() == [[0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]
    assert batch["ref_chosen_logps"].tolist() == [-1.5, -3.5]
    assert batch["ref_rejected_logps"].tolist() == [-2.5, -4.5]
    types = {name: value.dtype for name, value in batch.items()}
    whole = ("input_ids", "attention_mask", "completion_mask")
    assert types == dict.fromkeys(whole, torch.int64) | dict.fromkeys(
        ("ref_chosen_logps", "ref_rejected_logps"), torch.float32
    )


def test_pairs_without_frozen_log_probabilities_are_collated_without_them():
    rows = [{name: value for name, value in one.items() if not name.startswith("ref_")} for one in TWO]
    assert set(PairCollator(0)(rows)) == {"input_ids", "attention_mask", "completion_mask"}


def test_rows_of_a_dataset_can_be_collated(tmp_path):
    dataset = opened(tmp_path, [row("one", 1, **PAIR), row("three", 2, **PAIR)])
    batch = PairCollator(0)([dataset[0], dataset[1]])
    assert batch["input_ids"].tolist() == [[*b"one", 0, 0], [*b"three"], [1, 2, 3, 0, 0], [1, 2, 3, 0, 0]]
