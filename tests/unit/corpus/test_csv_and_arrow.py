"""CSV and Arrow files: every row ends in one place, is found again, and is exported as it was."""

import gzip
import json
from collections import Counter

import datasets
import pyarrow as pa
import pytest

from davir_ray.cli.extract import extracts
from davir_ray.config import CorpusConfig
from davir_ray.corpus.listing import list_corpus
from davir_ray.corpus.lookup import rows_at
from davir_ray.corpus.reading import examples, read_source_rows
from davir_ray.errors import UnreadableFile
from tests.unit.coreset.test_export import export_of, lines_of, write_all

CSV = b"""\xef\xbb\xbfquestion,answer,lang\r
2+2?,4,en\r
"Say ""hi"",\nplease.",hi,\r
\r
short,row\r
3+3?,,en\r
caf\xe9,x,fr\r
"""


def parsed(path, **settings):
    corpus = CorpusConfig(paths=str(path), **settings)
    listing = list_corpus(corpus, settings.get("limit"))
    return [one for split in listing.splits for one in examples(split, corpus, listing.formats[split.source])]


def test_every_row_of_csv_ends_in_one_place_with_a_reason(tmp_path):
    (tmp_path / "c.csv").write_bytes(CSV)
    found = parsed(tmp_path / "c.csv")
    assert [one.row for one in found] == [0, 1, 2, 3, 4]
    assert Counter(one.status for one in found) == {"ok": 2, "bad_format": 1, "empty": 1, "bad_text": 1}
    assert found[1].example.messages[0]["content"] == 'Say "hi",\nplease.'
    assert found[2].reason == "expected 3 values, as many as the header has columns, found 2"
    assert found[4].reason == "column `question`: is not UTF-8, or holds a NUL"
    assert found[0].not_read == ("lang",)
    assert len({one.example_id for one in found}) == 5


def test_csv_is_read_compressed_with_a_limit_and_with_turns_as_json_text(tmp_path):
    turns = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])
    quoted = '"' + turns.replace('"', '""') + '"'
    text = "messages,weight\n" + f"{quoted},1\n" * 3
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert [one.status for one in parsed(tmp_path / "c.csv.gz", limit=2)] == ["bad_format"] * 2
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(text.replace("weight", "note").encode()))
    assert [one.example.messages[1]["content"] for one in parsed(tmp_path / "c.csv.gz")] == ["a"] * 3


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty, expected CSV with a header"),
        (b"a,b,a\n1,2,3\n", "its header has the column `a` several times"),
        (b"a,,b\n1,2,3\n", "its header has a column without a name"),
        (
            b"question,r\xe9ponse\nq,a\n",
            r"its header is not UTF-8: byte 0xe9 at byte 10, .*; `iconv -f LATIN1 -t UTF-8 FILE > NEW_FILE`",
        ),
        (b"PAR1rest", "is Parquet; call it .parquet"),
        (b'question,answer\nq,"open\n', "is no CSV at line 2: unexpected end of data"),
    ],
)
def test_what_is_no_csv_is_said(tmp_path, data, says):
    (tmp_path / "c.csv").write_bytes(data)
    with pytest.raises(UnreadableFile, match=says):
        parsed(tmp_path / "c.csv")


ROWS = [{"question": f"What is {n}?", "answer": str(n), "tags": ["a", "b"][: n % 3]} for n in range(7)]


@pytest.fixture
def saved(tmp_path):
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved", num_shards=2)
    return tmp_path / "saved"


def test_what_datasets_saved_is_read_as_it_was(saved):
    found = parsed(saved)
    assert [one.example.messages[-1]["content"] for one in found] == [row["answer"] for row in ROWS]
    assert [one.row for one in found] == [0, 1, 2, 3, 0, 1, 2]
    assert found[0].not_read == ("tags",)
    assert len(parsed(saved, limit=5)) == 5


def test_rows_of_arrow_and_csv_are_found_again(saved, tmp_path):
    corpus = CorpusConfig(paths=str(saved))
    listing = list_corpus(corpus)
    (first, second) = (split.path for split in listing.splits)
    assert read_source_rows(listing.splits[1], [2, 0]).to_pylist() == [ROWS[6], ROWS[4]]
    (tmp_path / "c.csv").write_bytes(CSV)
    both = CorpusConfig(paths={"a": str(saved), "c": str(tmp_path / "c.csv")})
    csv = str(tmp_path / "c.csv")
    found = rows_at(
        both, {"a": "question_answer", "c": "question_answer"}, [(second, 1), (csv, 1), (first, 9)]
    )
    assert found[second, 1].record == ROWS[5]
    assert found[csv, 1].record["answer"] == "hi"
    assert "holds no such row" in found[first, 9]
    assert extracts([(second, 1), (csv, 0)]) == {
        (second, 1): "What is 5? | 5 | a | b",
        (csv, 0): "2+2? | 4 | en",
    }


def test_rows_of_arrow_and_csv_are_exported(saved, tmp_path):
    (tmp_path / "c.csv").write_bytes(CSV)
    export = export_of(tmp_path, {"a": str(saved), "c": str(tmp_path / "c.csv")}, ("parquet", "jsonl"))
    write_all(export)
    lines = [json.loads(line) for line in lines_of(export, "jsonl")]
    assert lines[:7] == ROWS
    assert lines[7] == {"question": "2+2?", "answer": "4", "lang": "en"}


@pytest.mark.parametrize("size", [0, 100, 500])
def test_a_stream_that_is_cut_off_is_unreadable(saved, size):
    (file,) = saved.glob("data-00000*")
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UnreadableFile, match=r"data-00000-of-00002\.arrow: is (empty|no whole stream)"):
        parsed(saved)


def test_a_file_of_arrow_with_a_footer_is_told_from_a_stream(tmp_path):
    table = pa.table({"text": ["a"]})
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UnreadableFile, match="is an Arrow file"):
        parsed(tmp_path / "x.arrow")
