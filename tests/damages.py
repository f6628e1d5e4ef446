"""Ways to damage a file, seeded."""

import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Damage = Callable[[Path, random.Random], None]


def gone(path: Path, draw: random.Random) -> None:
    path.unlink()


def empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def cut(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def garbage(path: Path, draw: random.Random) -> None:
    path.write_bytes(draw.randbytes(draw.randrange(1, 400)))


def flipped(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def foreign(path: Path, draw: random.Random) -> None:
    """Put a whole file there that another program wrote, of the kind that its name says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": ["a", "b"]}), path)
    elif path.suffix == ".json":
        path.write_text(draw.choice(["{}", "[]", "3", '{"seal": null}', "[" * 5000]))
    else:
        path.write_text(draw.choice(['{"a": 1}\n', "[]\n{}\n", "text\n"]))


def untrue(path: Path, draw: random.Random) -> None:
    """Change a value within a whole file, and nothing of what it says of itself."""
    if path.suffix == ".parquet":
        pq.write_table(_untrue(pq.read_table(path), draw), path)
    else:
        digits = [index for index, byte in enumerate(path.read_bytes()) if chr(byte).isdigit()]
        data = bytearray(path.read_bytes())
        if digits:
            index = draw.choice(digits)
            data[index] = data[index] + 1 if data[index] < ord("9") else ord("0")
        path.write_bytes(data)


def _untrue(table: pa.Table, draw: random.Random) -> pa.Table:
    if "loss" in table.column_names:
        loss = table["loss"].to_pylist()
        loss[draw.randrange(len(loss))] = draw.choice([float("nan"), float("inf"), -1.0])
        return table.set_column(1, table.schema.field("loss"), pa.array(loss))
    if len(table) < 2:
        return table
    order = [*range(1, len(table)), 0]  # all rows, turned by one
    return table.take(pa.array(order))


DAMAGES: dict[str, Damage] = {
    one.__name__: one for one in (gone, empty, cut, garbage, flipped, foreign, untrue)
}


def replaced(path: Path, other: Path) -> None:
    """Put another file of the same kind in its place."""
    path.write_bytes(other.read_bytes())
