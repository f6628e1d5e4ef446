import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from davir_ray.config import CorpusConfig
from davir_ray.corpus.columns import conform, unify
from davir_ray.corpus.example import content_hash
from davir_ray.corpus.listing import list_corpus
from davir_ray.corpus.reading import examples, read_rows, read_source_rows
from davir_ray.corpus.split import BadRow, Split
from davir_ray.errors import UnreadableFile
from davir_ray.schema import Status
from tests.hostile import write_hostile_corpus

DATA = Path(__file__).parents[3].parent / "shared" / "data"


def parse_all(corpus, limit=None):
    listing = list_corpus(corpus, limit)
    return [p for s in listing.splits for p in examples(s, corpus, listing.formats[s.source])]


def whole(path, kind="parquet"):
    rows = pq.ParquetFile(path).metadata.num_rows if kind == "parquet" else None
    groups = tuple(range(pq.ParquetFile(path).num_row_groups)) if kind == "parquet" else None
    return Split("corpus", str(path), kind, 0, rows, groups)


def test_every_row_of_the_hostile_corpus_gets_its_status(tmp_path):
    files = [file for file in write_hostile_corpus(tmp_path) if file.rows is not None]
    corpus = CorpusConfig(paths=str(tmp_path), on_bad_file="skip")
    listing = list_corpus(corpus)
    for file in files:
        parsed = [p for s in listing.splits if s.path == file.path for p in examples(s, corpus, "messages")]
        assert [p.row for p in parsed] == list(range(len(file.rows)))
        assert [(row.what, p.status) for row, p in zip(file.rows, parsed, strict=True)] == [
            (row.what, row.status) for row in file.rows
        ]
        assert all((p.example is None) == (p.status != Status.OK) == (p.reason is not None) for p in parsed)


def test_repeats_have_one_id_however_their_shard_is_nested(tmp_path):
    files = [file for file in write_hostile_corpus(tmp_path) if file.rows is not None]
    parsed = parse_all(CorpusConfig(paths=str(tmp_path), on_bad_file="skip"))
    whats = [row.what for file in files for row in file.rows]
    ids = {p.example_id for what, p in zip(whats, parsed, strict=True) if what.startswith("duplicate")}
    assert len(ids) == 1
    assert Counter(p.example_id for p in parsed)[ids.pop()] == 3


def test_ids_do_not_depend_on_files_shards_columns_or_order(tmp_path):
    rows = [{"instruction": f"i{n % 7}", "output": "" if n % 5 == 0 else f"o{n}", "x": n} for n in range(40)]
    (tmp_path / "one").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "one/a.parquet")
    (tmp_path / "two").mkdir()
    mixed = [
        {"y": {"z": n}, "output": row["output"], "instruction": row["instruction"]}
        for n, row in enumerate(rows[::-1])
    ]
    pq.write_table(pa.Table.from_pylist(mixed[:13]), tmp_path / "two/b.parquet", row_group_size=5)
    (tmp_path / "two/c.jsonl").write_text("\n".join(map(json.dumps, mixed[13:])))
    one, two = (
        sorted(p.example_id for p in parse_all(CorpusConfig(paths=str(tmp_path / n)))) for n in ("one", "two")
    )
    assert one == two
    assert len(set(one)) == 32 + 7  # eight empty rows share seven instructions


def test_rows_that_do_not_parse_keep_an_id_of_their_content(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": 1, "x": 5}\n{"text": 2}\n{"x": 6, "text": 1}\nbroken\n{"text": "good"}\n')
    parsed = list(examples(whole(path, "jsonl"), CorpusConfig(paths="x"), "text"))
    assert parsed[0].example_id == parsed[2].example_id == content_hash({"text": 1})
    assert len({p.example_id for p in parsed}) == 4


def test_only_the_asked_columns_are_read(tmp_path):
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"], "c": [{"d": 1}, None]}), tmp_path / "a.parquet")
    split = whole(tmp_path / "a.parquet")
    assert list(read_rows(split, ["a", "missing"])) == [(0, {"a": 1}), (1, {"a": 2})]
    assert list(read_rows(split))[1] == (1, {"a": 2, "b": "y", "c": None})


def test_batches_do_not_show(tmp_path):
    pq.write_table(pa.table({"a": list(range(100))}), tmp_path / "a.parquet", row_group_size=30)
    split = Split("s", str(tmp_path / "a.parquet"), "parquet", 35, 40, (1, 2))
    expected = [(n, {"a": n}) for n in range(35, 75)]
    assert [list(read_rows(split, None, size)) for size in (1, 7, 1024)] == [expected] * 3


def test_text_that_is_not_utf8_spoils_its_own_row_only(tmp_path):
    bad = pa.Array.from_buffers(pa.string(), 3, pa.array([b"good", b"\xff\xfe", b"fine"]).buffers())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    parsed = list(examples(whole(tmp_path / "a.parquet"), CorpusConfig(paths="x"), "text"))
    assert [p.status for p in parsed] == [Status.OK, Status.BAD_TEXT, Status.OK]
    assert "column `text`: is not UTF-8" in parsed[1].reason
    assert read_source_rows(whole(tmp_path / "a.parquet"), [2])["text"].to_pylist() == ["fine"]


WHERE = [pa.binary(), pa.large_binary(), pa.binary(1), pa.dictionary(pa.int32(), pa.binary())]


@pytest.mark.parametrize("type_", WHERE, ids=str)
def test_binary_text_is_read_as_utf8(tmp_path, type_):
    columns = {"question": pa.array([b"q", b"r"], type_), "answer": pa.array([b"a", b"\xff"], type_)}
    pq.write_table(pa.table({**columns, "kind": pa.array([b"k", b"k"])}), tmp_path / "a.parquet")
    good, bad = parse_all(CorpusConfig(paths=str(tmp_path), group_by="kind"))
    assert [turn["content"] for turn in good.example.messages] == ["q", "a"]
    assert (good.group, bad.status) == ("k", Status.BAD_TEXT)
    assert "column `answer`: is not UTF-8" in bad.reason


def test_binary_text_within_turns_is_read_and_bytes_that_nothing_reads_are_left(tmp_path):
    turn = pa.struct([("role", pa.binary()), ("content", pa.large_binary())])
    turns = [{"role": b"user", "content": b"2+2?"}, {"role": b"assistant", "content": "v\u00eder".encode()}]
    table = pa.table(
        {"messages": pa.array([turns], pa.list_(turn)), "thumbnail": [{"bytes": b"\xff", "path": "x"}]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (parsed,) = parse_all(CorpusConfig(paths=str(tmp_path)))
    assert parsed.example.messages[1] == {"role": "assistant", "content": "v\u00eder"}
    assert dict(read_rows(whole(tmp_path / "a.parquet")))[0]["thumbnail"] == {"bytes": b"\xff", "path": "x"}
    assert read_source_rows(whole(tmp_path / "a.parquet"), [0]).schema.equals(table.schema)


def test_rows_too_large_for_one_batch_are_read_in_smaller_ones(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": list(range(100))}), path, row_group_size=40)
    real = pq.ParquetFile.iter_batches

    def limited(self, batch_size, **options):
        for index, batch in enumerate(real(self, batch_size, **options)):
            if batch_size > 5 and index > 1:
                raise pa.ArrowNotImplementedError("Nested data conversions not implemented for chunked array")
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", limited)
    split = Split("s", str(path), "parquet", 3, 90, (0, 1, 2))
    assert list(read_rows(split, None, 16)) == [(n, {"n": n}) for n in range(3, 93)]


@pytest.mark.nightly
def test_a_batch_of_more_than_two_gibibytes_of_nested_text_is_read(tmp_path):
    path, text = tmp_path / "a.parquet", "x" * 2_200_000
    rows = [{"messages": [{"role": "assistant", "content": text}]}] * 1000
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=1000)
    with pytest.raises(pa.ArrowNotImplementedError):
        next(pq.ParquetFile(path).iter_batches(1000))
    assert sum(len(row["messages"][0]["content"]) for _, row in read_rows(whole(path))) == 1000 * len(text)
    assert read_source_rows(whole(path), list(range(1000))).num_rows == 1000


def test_pages_that_are_damaged_are_an_unreadable_file(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(5000)]}), path, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:2000] = b"\xff" * 1996
    path.write_bytes(data)
    with pytest.raises(UnreadableFile, match=r"a\.parquet: is damaged"):
        list(read_rows(whole(path)))


def test_lines_that_are_no_objects_are_marked_and_blank_ones_are_no_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n{"a": 1}\n\n7\n{"a": 2}')
    rows = dict(read_rows(whole(path, "jsonl")))
    assert (rows[0], rows[2]) == ({"a": 1}, {"a": 2})
    assert rows[1] == BadRow(Status.BAD_FORMAT, "expected a JSON object, found int 7", "7")


def test_renames_are_applied(tmp_path):
    pq.write_table(pa.table({"problem": ["p"], "solution": ["s"], "prompt": ["no"]}), tmp_path / "a.parquet")
    corpus = CorpusConfig(paths=str(tmp_path), columns={"prompt": "problem", "completion": "solution"})
    (parsed,) = parse_all(corpus)
    assert [turn["content"] for turn in parsed.example.messages] == ["p", "s"]


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({}, [("corpus", ""), ("corpus", ""), ("corpus", "")]),
        ({"group_by": "source"}, [("corpus", "corpus")] * 3),
        (
            {"source_by": "origin", "group_by": "source"},
            [("web", "web"), ("corpus", "corpus"), ("wiki", "wiki")],
        ),
        ({"group_by": "level"}, [("corpus", "1"), ("corpus", "2"), ("corpus", "")]),
        ({"group_by": "meta.task"}, [("corpus", "sum"), ("corpus", ""), ("corpus", "")]),
    ],
)
def test_source_and_group_come_from_columns(tmp_path, settings, labels):
    rows = [
        {"text": "a", "origin": "web", "level": 1, "meta": {"task": "sum"}},
        {"text": "b", "origin": None, "level": 2, "meta": None},
        {"text": "", "origin": "wiki", "level": None, "meta": {"task": None}},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [(p.source, p.group) for p in parse_all(CorpusConfig(paths=str(tmp_path), **settings))] == labels


def test_source_rows_come_back_unchanged_and_in_the_asked_order(tmp_path):
    table = pa.table(
        {
            "n": pa.array(range(100), pa.uint8()),
            "kind": pa.array(["a", "b"] * 50).dictionary_encode(),
            "when": pa.array(range(100), pa.timestamp("us", tz="UTC")),
            "meta": [{"k": [n]} if n % 3 else None for n in range(100)],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    picked = read_source_rows(whole(tmp_path / "a.parquet"), [93, 5, 41, 5])
    assert picked.schema.equals(table.schema)
    assert picked.to_pylist() == table.take([93, 5, 41, 5]).to_pylist()
    assert read_source_rows(whole(tmp_path / "a.parquet"), []).schema.equals(table.schema)


def test_source_rows_of_json_have_inferred_types(tmp_path):
    rows = [{"a": 1, "mixed": "x"}, {"mixed": {"y": 1}, "b": "\ud800"}, {"a": 3, "big": 1 << 70}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = read_source_rows(whole(tmp_path / "a.jsonl", "jsonl"), [2, 0, 1])
    assert table["a"].to_pylist() == [3, 1, None]
    assert table["mixed"].to_pylist() == [None, '"x"', '{"y": 1}']
    assert table["big"].to_pylist() == [str(1 << 70), None, None]
    assert table["b"].to_pylist() == [None, None, '"\\ud800"']


def test_ragged_shards_meet_in_one_schema(tmp_path):
    files = [file for file in write_hostile_corpus(tmp_path) if file.rows is not None]
    splits = list_corpus(CorpusConfig(paths=str(tmp_path), on_bad_file="skip")).splits
    tables = [read_source_rows(split, [0]) for split in splits]
    schema = unify(table.schema for table in tables)
    assert sum(conform(table, schema).num_rows for table in tables) == len(files)


def test_a_conforming_json_column_meets_parquet_without_being_encoded_twice(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"m": "x"}\n{"m": [1]}')
    json_rows = read_source_rows(whole(tmp_path / "a.jsonl", "jsonl"), [0, 1])
    other = pa.table({"m": [5]})
    schema = unify([json_rows.schema, other.schema])
    assert conform(json_rows, schema)["m"].to_pylist() == ['"x"', "[1]"]
    assert conform(other, schema)["m"].to_pylist() == ["5"]


@pytest.mark.skipif(not DATA.exists(), reason="the shared corpora are not here")
@pytest.mark.parametrize(
    ("name", "format", "counts"),
    [
        ("alpaca-5k", "alpaca", {"ok": 4998, "empty": 2}),
        ("gsm8k", "question_answer", {"ok": 8792}),
        ("hh-harmless", "preference_hh", {"ok": 2308, "empty": 4}),
        ("hh-helpful", "preference_hh", {"ok": 2350, "empty": 4}),
    ],
)
def test_real_corpora_parse_whole(name, format, counts):
    corpus = CorpusConfig(paths=str(DATA / name))
    assert list_corpus(corpus).formats == {"corpus": format}
    assert Counter(str(p.status) for p in parse_all(corpus)) == counts


@pytest.mark.parametrize(
    "line", ['{"question": "a", "question": "b", "answer": "c"}', '{"m": [{"x": 1, "x": 1}]}']
)
def test_a_key_that_stands_twice_in_an_object_loses_no_value_in_silence(tmp_path, line):
    (tmp_path / "a.jsonl").write_text('{"question": "q", "answer": "a"}\n' + line)
    good, bad = parse_all(CorpusConfig(paths=str(tmp_path)))
    assert (good.status, bad.status) == (Status.OK, Status.BAD_FORMAT)
    assert "stands twice in one object" in bad.reason
