import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from davir_ray import storage
from davir_ray.config import CorpusConfig
from davir_ray.corpus import listing as listing_module
from davir_ray.corpus.listing import list_corpus
from davir_ray.corpus.reading import examples
from davir_ray.errors import CorpusError, UnknownFormat, UnreadableFile
from tests.hostile import write_hostile_corpus


def write(path, rows=3, start=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = range(start, start + rows)
    table = pa.table({"question": [f"q{n}" for n in numbers], "answer": [f"a{n}" for n in numbers]})
    pq.write_table(table, path, **options)
    return str(path)


def config(*paths, **settings):
    return CorpusConfig(paths=list(map(str, paths)), **settings)


def answers(corpus, limit=None):
    listing = list_corpus(corpus, limit)
    parsed = [p for s in listing.splits for p in examples(s, corpus, listing.formats[s.source])]
    return [p.example.messages[-1]["content"] for p in parsed]


def test_files_folders_and_globs_are_listed_by_path_each_once(tmp_path):
    b, a = write(tmp_path / "x/b.parquet"), write(tmp_path / "x/a.parquet")
    deep = write(tmp_path / "x/deep/c.parquet")
    (tmp_path / "x/_SUCCESS").write_text("")
    (tmp_path / "x/README.md").write_text("about")
    write(tmp_path / "x/.hidden/d.parquet")
    assert [s.path for s in list_corpus(config(tmp_path / "x", b)).splits] == [a, b, deep]
    assert [s.path for s in list_corpus(config(tmp_path / "x/*.parquet")).splits] == [a, b]
    assert [s.path for s in list_corpus(config(b)).splits] == [b]


def test_sources_keep_their_names_and_formats(tmp_path):
    write(tmp_path / "qa/a.parquet")
    pq.write_table(pa.table({"instruction": ["i"], "output": ["o"]}), tmp_path / "alpaca.parquet")
    paths = {"maths": str(tmp_path / "qa"), "alpaca": str(tmp_path / "alpaca.parquet")}
    listing = list_corpus(CorpusConfig(paths=paths))
    assert listing.formats == {"alpaca": "alpaca", "maths": "question_answer"}
    assert [split.source for split in listing.splits] == ["alpaca", "maths"]


def test_a_file_of_two_sources_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet: belongs to two sources, one and two"):
        list_corpus(CorpusConfig(paths={"one": path, "two": str(tmp_path)}))


def test_a_path_that_matches_nothing_is_named(tmp_path):
    with pytest.raises(CorpusError, match=r"nowhere: no such file or folder"):
        list_corpus(config(tmp_path / "nowhere"))
    with pytest.raises(CorpusError, match=r"\*\.parquet: matches no file"):
        list_corpus(config(tmp_path / "*.parquet"))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CorpusError, match=r"matches 1 files, none of them"):
        list_corpus(config(tmp_path / "notes.txt"))


def test_row_groups_are_joined_and_cut_to_the_size_of_a_split(tmp_path, monkeypatch):
    monkeypatch.setattr(listing_module, "ROWS_PER_SPLIT", 4)
    path = write(tmp_path / "a.parquet", rows=17, row_group_size=3)
    big = write(tmp_path / "b.parquet", rows=10, start=17, row_group_size=100)
    small = write(tmp_path / "c.parquet", rows=4, start=27, row_group_size=2)
    splits = list_corpus(config(tmp_path)).splits
    assert [(s.first_row, s.num_rows, s.row_groups) for s in splits if s.path == small] == [(0, 4, (0, 1))]
    assert [(s.first_row, s.num_rows) for s in splits if s.path == big] == [(0, 4), (4, 4), (8, 2)]
    assert sum(s.num_rows for s in splits if s.path == path) == 17
    assert max(s.num_rows for s in splits) <= 4
    assert answers(config(tmp_path)) == [f"a{n}" for n in range(31)]


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 8, 100])
def test_a_limit_keeps_the_first_rows_across_files_of_all_kinds(tmp_path, limit):
    write(tmp_path / "a.parquet", rows=3, row_group_size=2)
    rows = [{"question": "q", "answer": f"a{n}"} for n in range(3, 6)]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "c.json").write_text(json.dumps([{"question": "q", "answer": "a6"}]))
    write(tmp_path / "d.parquet", rows=3, start=7)
    assert answers(config(tmp_path), limit) == [f"a{n}" for n in range(min(limit, 10))]


def test_json_files_are_read_whatever_their_form(tmp_path):
    rows = [{"question": "q", "answer": f"a{n}"} for n in range(3)]
    lines = "\n".join(map(json.dumps, rows)).encode()
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(rows, indent=2), encoding="utf-8")
    (tmp_path / "b.json").write_bytes(lines)
    (tmp_path / "c.ndjson").write_bytes(b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n"))
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(lines[:50]) + gzip.compress(lines[50:]))
    (tmp_path / "e.jsonl.zst").write_bytes(pa.compress(lines, "zstd", asbytes=True))
    corpus = config(tmp_path)
    assert [split.kind for split in list_corpus(corpus).splits] == [
        "json",
        "jsonl",
        "jsonl",
        "jsonl",
        "jsonl",
    ]
    assert answers(corpus) == ["a0", "a1", "a2"] * 5


def test_any_filesystem_serves():
    table = pa.table({"text": ["one", "two"]})
    storage.write_table("memory://corpus-test/x/a.parquet", table)
    listing = list_corpus(config("memory://corpus-test/*/*.parquet"))
    assert [split.path for split in listing.splits] == ["memory:///corpus-test/x/a.parquet"]
    (split,) = listing.splits
    assert [p.example.text for p in examples(split, config("x"), "text")] == ["one", "two"]
    storage.delete("memory://corpus-test")


def test_unreadable_files_stop_the_run_and_are_all_named(tmp_path):
    bad = [file for file in write_hostile_corpus(tmp_path) if file.rows is None]
    with pytest.raises(UnreadableFile) as caught:
        list_corpus(config(tmp_path))
    assert "4 of the corpus's files" in str(caught.value)
    for file in bad:
        assert f"{file.path}: {file.says}" in str(caught.value)


def test_unreadable_files_can_be_skipped_and_are_still_named(tmp_path):
    files = write_hostile_corpus(tmp_path)
    listing = list_corpus(config(tmp_path, on_bad_file="skip"))
    assert [bad.path for bad in listing.bad_files] == [file.path for file in files if file.rows is None]
    assert {split.path for split in listing.splits} == {file.path for file in files if file.rows is not None}


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", b"not json at all\n", "none of its first 1 rows is a JSON object"),
        ("a.json", b'[{"text": "a"}', "begins as a JSON array, but is not valid JSON"),
        ("a.jsonl.gz", b"plain text", "is not gzip"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 99)[:-9], "is not gzip, or is cut off"),
        ("a.parquet", b"PAR1" + b"\x00" * 40 + b"PAR1", "is damaged"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_unreadable(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UnreadableFile, match=words):
        list_corpus(config(tmp_path))


def test_a_corpus_without_rows_is_an_error(tmp_path):
    write(tmp_path / "a.parquet", rows=0)
    with pytest.raises(CorpusError, match="holds no rows"):
        list_corpus(config(tmp_path))


def test_a_file_that_lacks_a_column_is_named(tmp_path):
    write(tmp_path / "a.parquet")
    pq.write_table(pa.table({"question": ["q"]}), tmp_path / "b.parquet")
    with pytest.raises(
        CorpusError, match=r"b\.parquet: format `question_answer` needs the column answer; the file has q"
    ):
        list_corpus(config(tmp_path))
    with pytest.raises(
        CorpusError, match=r"a\.parquet: format `alpaca` needs the column instruction, output"
    ):
        list_corpus(config(tmp_path, format="alpaca"))
    with pytest.raises(CorpusError, match=r"no column `task`, which corpus.group_by names"):
        list_corpus(config(tmp_path / "a.parquet", group_by="task"))


def test_an_unknown_format_names_the_file(tmp_path):
    pq.write_table(pa.table({"problem": ["q"]}), tmp_path / "b.parquet")
    with pytest.raises(UnknownFormat, match=r"b\.parquet: no known format fits the columns problem"):
        list_corpus(config(tmp_path))


def test_the_digest_changes_with_the_files_and_with_nothing_else(tmp_path):
    path = write(tmp_path / "a.parquet")
    digest = list_corpus(config(tmp_path)).digest
    assert list_corpus(config(path)).digest == digest
    assert list_corpus(config(path), limit=2).digest != digest
    os.utime(path, (1, 1))
    touched = list_corpus(config(path)).digest
    assert touched != digest
    write(tmp_path / "b.parquet")
    assert list_corpus(config(tmp_path)).digest != touched


def test_schemas_that_differ_are_all_listed(tmp_path):
    write(tmp_path / "a.parquet")
    write(tmp_path / "b.parquet")
    pq.write_table(pa.table({"question": ["q"], "answer": ["a"], "n": [1]}), tmp_path / "c.parquet")
    assert [schema.names for schema in list_corpus(config(tmp_path)).schemas] == [
        ["question", "answer"],
        ["question", "answer", "n"],
    ]


def test_a_file_that_is_forbidden_is_not_skipped_but_stops_the_run(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet")
    path = write(tmp_path / "b.parquet")
    real_open = LocalFileSystem.open

    def refuse(self, name, *words, **options):
        if name == path:
            raise PermissionError("the token has expired")
        return real_open(self, name, *words, **options)

    monkeypatch.setattr(LocalFileSystem, "open", refuse)
    with pytest.raises(
        CorpusError, match=r"b.parquet: the storage fails: PermissionError: the token"
    ) as caught:
        list_corpus(config(tmp_path, on_bad_file="skip"))
    assert not isinstance(caught.value, UnreadableFile)


def test_the_digest_of_a_split_stays_when_the_corpus_grows(tmp_path):
    write(tmp_path / "b.parquet")
    (before,) = list_corpus(config(tmp_path)).digests
    write(tmp_path / "a.parquet", 5)
    write(tmp_path / "c.parquet", 5)
    new, stayed, other = list_corpus(config(tmp_path)).digests
    assert stayed == before
    assert len({new, stayed, other}) == 3


def test_an_id_that_no_file_has_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "t", "key": 1}\n')
    assert list_corpus(CorpusConfig(paths=str(tmp_path), id="key")).splits
    with pytest.raises(CorpusError, match=r"corpus\.id names"):
        list_corpus(CorpusConfig(paths=str(tmp_path), id="name"))
