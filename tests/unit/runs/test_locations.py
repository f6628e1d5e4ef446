import numpy as np
import pyarrow as pa

from davir_ray import storage
from davir_ray.corpus.split import Split
from davir_ray.runs.locations import ABSENT, Places, read_places, write_places
from davir_ray.runs.run import Run
from davir_ray.schema import EXAMPLES, TOKENS
from davir_ray.store.prepared import Prepared


def key(letter):
    return letter.encode() * 16


def prepared(tmp_path, *splits):
    made = Prepared(str(tmp_path / "prepared"), tuple(f"part-{index}" for index in range(len(splits))))
    for index, rows in enumerate(splits):
        examples = [
            {
                "row": row,
                "example_id": key(letter),
                "source": "s",
                "group": "",
                "status": "ok",
                "reason": None,
            }
            for row, letter in rows
        ]
        made.write(index, pa.Table.from_pylist(examples, schema=EXAMPLES), TOKENS.empty_table())
    return made


def contents(places, path, *rows):
    return places.contents(path, np.array(rows, dtype=np.int64)).tolist()


def test_each_row_of_a_file_is_found_whatever_the_splits(tmp_path):
    made = prepared(tmp_path, [(0, "a"), (1, "b")], [(2, "c"), (4, "d")], [(0, "z")])
    places = Places(made, (("x", 0), ("x", 2), ("y", 0)))
    assert contents(places, "x", 4, 0, 2, 1) == [key("d"), key("a"), key("c"), key("b")]
    assert contents(places, "x", 3, 9) == [ABSENT, ABSENT]
    assert contents(places, "y", 0, 1) == [key("z"), ABSENT]
    assert contents(places, "w", 0) == [ABSENT]
    assert contents(places, "x") == []


def test_a_split_without_rows_holds_nothing(tmp_path):
    assert contents(Places(prepared(tmp_path, []), (("x", 0),)), "x", 0) == [ABSENT]


def test_only_splits_that_may_hold_a_row_are_read(tmp_path):
    made = prepared(tmp_path, [(0, "a")], [(5, "b")], [(9, "c")])
    places = Places(made, (("x", 0), ("x", 5), ("x", 9)))
    for index in (0, 2):
        storage.delete(storage.join(made.folder, "examples", f"part-{index}.parquet"))
    assert contents(places, "x", 5, 8) == [key("b"), ABSENT]


def test_places_are_kept_with_the_run(tmp_path):
    made = prepared(tmp_path, [(0, "a")], [(7, "b")])
    splits = [Split("s", "x", "parquet", first, 1, (0,)) for first in (0, 7)]
    write_places(Run.in_output(str(tmp_path), "n-1"), made, splits)
    places = read_places(str(tmp_path / "n-1"))
    assert places == Places(made, (("x", 0), ("x", 7)))
    assert contents(places, "x", 7) == [key("b")]


def test_places_are_unknown_without_their_file_and_once_the_tokens_are_pruned(tmp_path):
    assert read_places(str(tmp_path / "n-1")) is None
    made = prepared(tmp_path, [(0, "a")])
    write_places(Run.in_output(str(tmp_path), "n-1"), made, [Split("s", "x", "parquet", 0, 1, (0,))])
    storage.delete(made.folder)
    assert read_places(str(tmp_path / "n-1")) is None
