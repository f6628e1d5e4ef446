import itertools

import pyarrow as pa
import pytest

from davir_ray import storage
from davir_ray.corpus.columns import conform, unify
from davir_ray.corpus.json_files import inferred
from davir_ray.corpus.json_text import decoded, is_json_text, json_columns
from davir_ray.corpus.reading import read_rows
from davir_ray.corpus.split import Split

SHARDS = [
    pa.table({"id": pa.array([1, 2], pa.int32()), "turns": [[{"role": "user"}], None], "note": ["a", None]}),
    pa.table({"id": [1.5], "turns": [[{"role": "user", "meta": {"x": 1}}, None]], "note": pa.nulls(1)}),
    pa.table({"turns": [[], [{"role": None, "meta": {"x": None, "y": "z"}}]], "extra": [{"a": 1}, None]}),
]


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def test_shards_of_every_shape_fit_one_schema_and_keep_their_values():
    schema = unify(shard.schema for shard in SHARDS)
    whole = pa.concat_tables(conform(shard, schema) for shard in SHARDS)
    given = [row for shard in SHARDS for row in shard.to_pylist()]
    assert without_nulls(whole.to_pylist()) == without_nulls(given)
    turn = pa.struct({"role": pa.string(), "meta": pa.struct({"x": pa.int64(), "y": pa.string()})})
    assert schema.field("id").type == pa.float64()
    assert set(schema.field("turns").type.value_type.field("meta").type.names) == {"x", "y"}
    assert set(schema.field("turns").type.value_type.names) == set(turn.names)


def test_empty_lists_and_nulls_stay_apart():
    schema = unify(shard.schema for shard in SHARDS)
    assert conform(SHARDS[0], schema)["turns"].to_pylist()[1] is None
    assert conform(SHARDS[2], schema)["turns"].to_pylist()[0] == []
    assert conform(SHARDS[2], schema)["extra"].to_pylist() == [{"a": 1}, None]


def test_sliced_shards_conform_too():
    schema = unify(shard.schema for shard in SHARDS)
    for shard in SHARDS:
        assert conform(shard.slice(1), schema).to_pylist() == conform(shard, schema).to_pylist()[1:]


def test_the_order_of_shards_does_not_change_the_schema():
    assert len({str(unify(s.schema for s in order)) for order in itertools.permutations(SHARDS)}) == 1


def test_equal_schemas_stay_as_they_are():
    schema = pa.schema(
        {"b": pa.large_string(), "a": pa.dictionary(pa.int8(), pa.string()), "c": pa.timestamp("us")}
    )
    assert unify([schema, schema]).equals(schema)


def test_types_that_cannot_be_one_become_json_text(capsys):
    text, struct = pa.table({"meta": ["a", None]}), pa.table({"meta": [{"k": [1, "\u00e9"][:1]}]})
    schema = unify([text.schema, struct.schema])
    assert "`meta`" in capsys.readouterr().err
    assert schema.field("meta").type == pa.string()
    values = [value for table in (text, struct) for value in conform(table, schema)["meta"].to_pylist()]
    assert values == ['"a"', None, '{"k": [1]}']


def test_json_text_is_not_encoded_twice():
    schema = unify([pa.schema({"x": pa.string()}), pa.schema({"x": pa.int64()})])
    once = conform(pa.table({"x": ["a"]}), schema)
    assert conform(once, unify([schema, pa.schema({"x": pa.int64()})]))["x"].to_pylist() == ['"a"']


def test_a_struct_without_fields_can_be_stored(tmp_path):
    table = pa.table({"meta": [{}, None]})
    conformed = conform(table, unify([table.schema]))
    storage.write_table(str(tmp_path / "x.parquet"), conformed)
    assert storage.read_table(str(tmp_path / "x.parquet"))["meta"].to_pylist() == ["{}", None]


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.null(), pa.list_(pa.string()), pa.list_(pa.string())),
        (pa.int8(), pa.int64(), pa.int64()),
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), pa.string()),
        (pa.list_(pa.int8()), pa.large_list(pa.int64()), pa.list_(pa.int64())),
        (pa.list_(pa.null()), pa.list_(pa.struct({"a": pa.int8()})), pa.list_(pa.struct({"a": pa.int8()}))),
        (pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us")),
    ],
)
def test_types_widen_in_either_order(one, other, both):
    for pair in ((one, other), (other, one)):
        assert unify(pa.schema({"x": type_}) for type_ in pair).field("x").type == both


def test_whole_numbers_beside_floats_are_named(capsys):
    schema = unify([pa.schema({"n": pa.int64()}), pa.schema({"n": pa.float64()})])
    assert "`n` is whole numbers" in capsys.readouterr().err
    assert conform(pa.table({"n": [2**53 + 1]}), schema)["n"].to_pylist() == [float(2**53)]


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ([1, 2.5, None], pa.float64()),
        ([float("nan"), 1.5], pa.float64()),
        ([{"a": 1}, {"b": None}], pa.struct({"a": pa.int64(), "b": pa.null()})),
        ([[1], []], pa.list_(pa.int64())),
        ([{"n": 1}, {"n": 2.5}], None),
        ([[1], [2.5]], None),
        ([{"a": "x"}, {"a": ["x"]}], None),
        (["text", {"a": 1}], None),
        ([2**70, 0], None),
        ([2**53 + 1, 0.5], None),
        (["\ud800"], None),
    ],
)
def test_a_column_of_json_is_typed_where_no_value_changes_and_text_elsewhere(values, type_):
    table = inferred([{"x": value} for value in values])
    field = table.schema.field("x")
    assert is_json_text(field) == (type_ is None)
    if type_ is not None:
        assert field.type == type_
        assert repr(without_nulls(table["x"].to_pylist())) == repr(
            [
                float(value) if type_ == pa.float64() and value is not None else without_nulls(value)
                for value in values
            ]
        )
    else:
        records = [decoded(record, json_columns(table.schema)) for record in table.to_pylist()]
        assert [record["x"] for record in records] == values


def test_numbers_within_structures_are_not_widened_across_shards(capsys):
    shards = [pa.table({"m": [{"n": 1}]}), pa.table({"m": [{"n": 2.5}]})]
    schema = unify(shard.schema for shard in shards)
    assert is_json_text(schema.field("m"))
    assert [v for shard in shards for v in conform(shard, schema)["m"].to_pylist()] == [
        '{"n": 1}',
        '{"n": 2.5}',
    ]
    assert "`m`" in capsys.readouterr().err


def test_rows_of_parquet_are_read_as_what_their_json_text_says(tmp_path):
    table = inferred([{"x": {"n": 1}, "y": "{}"}, {"x": {"n": 2.5}, "y": "[]"}])
    storage.write_table(str(tmp_path / "x.parquet"), table)
    split = Split("corpus", str(tmp_path / "x.parquet"), "parquet", 0, 2, (0,))
    assert [record for _, record in read_rows(split)] == [
        {"x": {"n": 1}, "y": "{}"},
        {"x": {"n": 2.5}, "y": "[]"},
    ]
