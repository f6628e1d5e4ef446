"""A few rows of the corpus, by file and row, as a line of printable text each."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from davir_ray.cli import extract
from davir_ray.cli.extract import WIDTH, extracts

ROWS = [{"question": f"What is {i}?", "answer": f"It is\n {i}."} for i in range(10)]


def test_rows_of_parquet_are_found_whatever_the_row_group(tmp_path):
    path = str(tmp_path / "rows.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=3)
    wanted = [(path, row) for row in (0, 2, 3, 9)]
    assert extracts(wanted) == {place: f"What is {place[1]}? | It is {place[1]}." for place in wanted}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "lines.json", "rows.jsonl.gz"])
def test_rows_of_json_are_found(tmp_path, name):
    path = tmp_path / name
    text = json.dumps(ROWS) if name == "rows.json" else "".join(json.dumps(row) + "\n" for row in ROWS)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert extracts([(str(path), 7)]) == {(str(path), 7): "What is 7? | It is 7."}


def test_what_a_row_says_is_shortened_and_cannot_write_to_the_terminal(tmp_path):
    path = tmp_path / "rows.jsonl"
    turns = [{"role": "user", "content": "\x1b[31mred"}, {"role": "assistant", "content": "x" * 200}]
    path.write_text(json.dumps({"id": "row-0", "messages": turns}) + "\n")
    (text,) = extracts([(str(path), 0)]).values()
    assert text.startswith("\\x1b[31mred | xxx")
    assert text.endswith("xxx...")
    assert len(text) == WIDTH + len("\\x1b") - 1


@pytest.mark.parametrize("content", [None, b"PAR1 and no more", b""])
def test_a_file_that_is_gone_or_damaged_has_no_text(tmp_path, content):
    path = tmp_path / "rows.parquet"
    if content is not None:
        path.write_bytes(content)
    assert extracts([(str(path), 0)]) == {}


def test_rows_without_text_and_rows_far_into_a_json_file_have_none(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"input_ids": [1, 2]}\n' + '{"text": "here"}\n' * 3)
    monkeypatch.setattr(extract, "FARTHEST", 2)
    assert extracts([(str(path), row) for row in range(4)]) == {(str(path), 1): "here"}
