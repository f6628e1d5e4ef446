"""One schema for shards whose columns are missing, nested differently or typed differently.

Null gives way to anything, numbers widen, structs take the union of their fields, lists unify what they hold.
Where two types cannot be one (text against struct), or a number within a structure would become another (1 and 1.0
are not the same tokens), the column becomes JSON text in all shards. Davir reads such a column as what it says.
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from davir_ray.corpus.json_text import JSON_TEXT, is_json_text, to_json
from davir_ray.errors import CorpusError
from davir_ray.progress import warn


def unify(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Return the schema that rows of all these fit; the order in which they come does not matter."""
    distinct = {str(schema.remove_metadata()): schema for schema in schemas}
    # The widest schema leads, so that its order of columns is kept, whichever shard is listed first.
    ordered = sorted(distinct, key=lambda text: (-len(distinct[text]), text))
    columns: dict[str, list[pa.Field]] = {}
    for text in ordered:
        for field in distinct[text]:
            columns.setdefault(field.name, []).append(field)
    return pa.schema([_unified(name, fields) for name, fields in columns.items()])


def _unified(name: str, fields: list[pa.Field]) -> pa.Field:
    if any(map(is_json_text, fields)):
        warn(f"column `{name}`: its values have no one type in Parquet: it is written as JSON text")
        return pa.field(name, pa.string(), metadata=JSON_TEXT)
    types = [field.type for field in fields]
    merged = types[0]
    try:
        for other in types[1:]:
            merged = _merge(merged, other)
        _check_storable(merged)
    except pa.ArrowException:
        shown = " and ".join(sorted({str(type_) for type_ in types}))
        warn(f"column `{name}` is {shown} in different shards: it is written as JSON text")
        return pa.field(name, pa.string(), metadata=JSON_TEXT)
    if pa.types.is_floating(merged) and any(pa.types.is_integer(type_) for type_ in types):
        warn(f"column `{name}` is whole numbers in some shards: it is written as {merged}")
    return pa.field(name, merged)


def _merge(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return the type that holds both; raises `ArrowException` where there is none."""
    if one.equals(other):
        return one
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return _merge_structs(one, other)
    if _is_list(one) and _is_list(other):
        return pa.list_(_merge_within(one.value_type, other.value_type))
    if pa.types.is_dictionary(one) or pa.types.is_dictionary(other):
        return _merge(_decoded(one), _decoded(other))
    pair = [pa.schema([pa.field("x", one)]), pa.schema([pa.field("x", other)])]
    return pa.unify_schemas(pair, promote_options="permissive").field("x").type


def _merge_structs(one: pa.StructType, other: pa.StructType) -> pa.DataType:
    fields = {field.name: field.type for field in one}
    for field in other:
        known = fields.get(field.name)
        fields[field.name] = field.type if known is None else _merge_within(known, field.type)
    return pa.struct(list(fields.items()))


def _merge_within(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Merge what a struct or a list holds; raises where whole numbers would become others."""
    merged = _merge(one, other)
    if pa.types.is_floating(merged) and (pa.types.is_integer(one) or pa.types.is_integer(other)):
        raise pa.ArrowTypeError("whole numbers beside others")
    return merged


def _decoded(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _is_list(type_: pa.DataType) -> bool:
    return isinstance(type_, pa.ListType | pa.LargeListType | pa.FixedSizeListType)


def _check_storable(type_: pa.DataType) -> None:
    """Raise for a struct without fields, which Parquet cannot hold."""
    if pa.types.is_struct(type_) and type_.num_fields == 0:
        raise pa.ArrowTypeError("a struct without fields")
    for index in range(type_.num_fields):
        _check_storable(type_.field(index).type)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring a table into a unified schema; what the table does not have is null."""
    columns = [_column(table, field) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in table.column_names:
        return pa.nulls(table.num_rows, field.type)
    column = table.column(field.name)
    if is_json_text(field) and not is_json_text(table.schema.field(field.name)):
        return pa.array([None if v is None else to_json(v) for v in column.to_pylist()], pa.string())
    try:
        return pa.chunked_array([_convert(chunk, field.type) for chunk in column.chunks], field.type)
    except pa.ArrowException as error:
        raise CorpusError(
            f"column `{field.name}`: {column.type} does not become {field.type}: {error}"
        ) from error


def _convert(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """Cast an array, filling fields that its structs do not have with nulls."""
    if array.type.equals(type_):
        return array
    if pa.types.is_struct(type_) and pa.types.is_struct(array.type):
        return _convert_struct(array, type_)
    if pa.types.is_list(type_) and _is_list(array.type):
        return _convert_list(array, type_)
    # Digits of whole numbers above 2**53 give way where other shards hold floats: unify has warned.
    return array.cast(type_, safe=not (pa.types.is_integer(array.type) and pa.types.is_floating(type_)))


def _convert_struct(array: pa.StructArray, type_: pa.StructType) -> pa.Array:
    names = {field.name: index for index, field in enumerate(array.type)}
    parts = [
        _convert(pc.struct_field(array, names[field.name]), field.type)
        if field.name in names
        else pa.nulls(len(array), field.type)
        for field in type_
    ]
    return pa.StructArray.from_arrays(parts, fields=list(type_), mask=array.is_null())


def _convert_list(array: pa.Array, type_: pa.ListType) -> pa.Array:
    """Rebuild a list array around its converted values; empty lists and nulls stay apart."""
    values = _convert(array.flatten(), type_.value_type)
    lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int32())
    ends = pc.cumulative_sum(lengths)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    return pa.ListArray.from_arrays(offsets, values, type=type_, mask=array.is_null())
