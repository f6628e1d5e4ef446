import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from davir_ray.config import CorpusConfig
from davir_ray.corpus import parquet_files
from davir_ray.corpus.not_read import NotRead, parquet_not_read
from davir_ray.corpus.reading import examples, not_read_columns
from davir_ray.corpus.split import Split

ROWS = [
    {
        "question": f"q{n}",
        "answer": "a",
        "extra": "x",
        "some": n if n % 2 else None,
        "label": "math" if n < 3 else None,
        "meta": {"task": "t", "n": n} if n else None,
        "tags": ["x", "y"] if n else [],
        "nothing": None,
        "empty": [],
    }
    for n in range(8)
]
CONFIG = CorpusConfig(paths="x")


def json_split(tmp_path, rows=ROWS):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return Split("corpus", str(path), "jsonl", 0, None, None)


def parquet_split(tmp_path, rows=ROWS, group=3):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    groups = pq.ParquetFile(path).num_row_groups
    return Split("corpus", str(path), "parquet", 0, len(rows), tuple(range(groups)))


def looked_at(split, config=CONFIG, format="question_answer"):
    found = NotRead()
    for parsed in examples(split, config, format):
        found.add_row(parsed.not_read)
    found.add_columns(not_read_columns(split, config, format))
    return found


def test_columns_of_json_are_counted_row_by_row(tmp_path):
    found = looked_at(json_split(tmp_path))
    assert found.rows == 8
    assert found.columns == {"extra": 8, "some": 4, "label": 3, "meta": 7, "tags": 8, "empty": 8}


def test_columns_of_parquet_are_counted_by_the_footer(tmp_path):
    found = looked_at(parquet_split(tmp_path))
    # Of a list or a struct the footer tells whether there is anything, and not in how many rows.
    assert found.columns == {"extra": 8, "some": 4, "label": 3, "meta": None, "tags": None}
    assert (
        found.shown()
        == "extra (all 8 rows), some (4 rows), label (3 rows), meta (some rows), tags (some rows)"
    )


def test_columns_of_parquet_that_nothing_reads_are_not_read(tmp_path, monkeypatch):
    asked = []
    batches = pq.ParquetFile.iter_batches

    def noted(self, *args, columns, **kwargs):
        asked.append(columns)
        return batches(self, *args, columns=columns, **kwargs)

    monkeypatch.setattr(parquet_files.pq.ParquetFile, "iter_batches", noted)
    looked_at(parquet_split(tmp_path))
    assert asked == [["question", "answer", "label"]]


@pytest.mark.parametrize("make", [json_split, parquet_split])
def test_what_the_recipe_names_is_read(tmp_path, make):
    config = CorpusConfig(paths="x", group_by="meta.task", source_by="label", columns={"question": "extra"})
    found = looked_at(make(tmp_path), config)
    assert set(found.columns) - {"empty"} == {"question", "some", "tags"}


@pytest.mark.parametrize("format", ["messages", "preference"])
def test_a_system_column_beside_a_system_turn_is_not_read_and_said(tmp_path, format):
    own, ask = {"role": "system", "content": "own"}, {"role": "user", "content": "q"}
    rest = {"chosen": "a", "rejected": "b"} if format == "preference" else {}
    key = "prompt" if format == "preference" else "messages"
    answer = [] if rest else [{"role": "assistant", "content": "a"}]
    rows = [{key: [own, ask, *answer], "system": text, **rest} for text in ("own", "other", None)]
    assert looked_at(json_split(tmp_path, rows), format=format).columns == {"system": 1}


def test_a_split_that_shares_its_row_group_counts_what_is_exact(tmp_path):
    split = replace(parquet_split(tmp_path, group=8), first_row=2, num_rows=4)
    assert parquet_not_read(split, {"question", "answer"}) == {
        "extra": 4,
        "some": None,
        "label": None,
        "meta": None,
        "tags": None,
    }


VALUES = st.lists(st.one_of(st.none(), st.just("x")), min_size=1, max_size=12)


@given(values=VALUES, group=st.integers(1, 5), start=st.integers(0, 11), count=st.integers(1, 12))
def test_counts_of_a_footer_are_never_wrong(tmp_path_factory, values, group, start, count):
    rows = [{"text": "a", "x": value, "a.b": value, "s": {"x": value}} for value in values]
    whole = parquet_split(tmp_path_factory.mktemp("p"), rows, group)
    start = min(start, len(values) - 1)
    count = min(count, len(values) - start)
    inside = [n for n in range(len(values)) if start <= n < start + count]
    groups = tuple(sorted({n // group for n in inside}))
    found = parquet_not_read(replace(whole, first_row=start, num_rows=count, row_groups=groups), {"text"})
    true = sum(values[n] is not None for n in inside)
    for name in ("x", "a.b", "s"):
        assert found.get(name, 0) in (true, None)
    if start == 0 and count == len(values):
        assert found.get("x", 0) == true


def test_sums_keep_what_is_not_known():
    one, other = NotRead(2, {"a": 2, "b": None}), NotRead(3, {"a": 1, "b": 1, "c": 3})
    one.add(other)
    assert one == NotRead(5, {"a": 3, "b": None, "c": 3})
    assert one.shown() == "a (3 rows), c (3 rows), b (some rows)"


def test_a_line_names_so_many_columns_and_no_more():
    assert NotRead(1, {f"c{n:02}": 1 for n in range(25)}).shown().endswith("c19 (1 row), and 5 more")
