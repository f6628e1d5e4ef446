"""Which of several stores of one model answers."""

import pyarrow as pa

from davir_ray.ids import column_of, keys_of
from davir_ray.store.ray_lookup import first_held
from tests.measured import keys

COLUMNS = pa.schema([("loss", pa.float64())])


def part(names: str, losses) -> pa.Table:
    return pa.table({"sequence_id": column_of(keys(*names)), "loss": pa.array(losses)})


def test_the_first_store_that_holds_a_sequence_answers_however_small_the_others_numbers_are():
    own, other = [part("cb", [3.0, 2.5]), part("b", [2.0])], [part("abd", [1.0, 0.5, 4.0])]
    held = first_held(COLUMNS, [own, other])
    assert keys_of(held["sequence_id"]).tolist() == keys(*"abcd").tolist()
    assert held["loss"].to_pylist() == [1.0, 2.0, 3.0, 4.0]


def test_of_empty_stores_nothing_is_held():
    assert len(first_held(COLUMNS, [[], []])) == 0
