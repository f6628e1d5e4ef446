import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from davir_ray.ids import keys_of
from davir_ray.measure.chunks import plan_chunks
from davir_ray.schema import ID
from davir_ray.store.measurements import part_name

lengths = st.lists(st.integers(1, 300), max_size=60)


def sequences(values: list[int]) -> pa.Table:
    count = len(values)
    return pa.table(
        {
            "position": pa.array(range(count), pa.int32()),
            "sequence_id": pa.array([str(i).encode().ljust(16, b"-") for i in range(count)], ID),
            "length": pa.array(values, pa.int32()),
        }
    )


@given(lengths, st.integers(1, 500))
def test_every_sequence_is_in_one_chunk_and_no_chunk_exceeds_the_budget_by_a_whole_sequence(values, budget):
    chunks = plan_chunks(sequences(values), budget)
    placed = [position for row in chunks["positions"].to_pylist() for position in row]
    assert sorted(placed) == list(range(len(values)))
    for positions, tokens in zip(chunks["positions"].to_pylist(), chunks["tokens"].to_pylist(), strict=True):
        assert positions
        assert tokens == sum(values[position] for position in positions)
        assert tokens - values[positions[-1]] < budget + max(values)


@given(lengths, st.integers(1, 500))
def test_longest_come_first(values, budget):
    chunks = plan_chunks(sequences(values), budget)
    placed = [values[position] for row in chunks["positions"].to_pylist() for position in row]
    assert placed == sorted(values, reverse=True)


@given(lengths, st.integers(1, 500), st.randoms())
def test_chunks_do_not_depend_on_the_order_of_rows(values, budget, random):
    table = sequences(values)
    order = list(range(len(values)))
    random.shuffle(order)
    names = plan_chunks(table, budget)["name"].to_pylist()
    assert plan_chunks(table.take(pa.array(order, pa.int64())), budget)["name"].to_pylist() == names


def test_a_chunk_is_named_as_its_part_will_be():
    table = sequences([3, 9, 5])
    (name,) = plan_chunks(table, 100)["name"].to_pylist()
    assert name == part_name(keys_of(table["sequence_id"])[[1, 2, 0]])
