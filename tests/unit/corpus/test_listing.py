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
    with pytest.raises(CorpusError, match=r"matches 1 files \(notes\.txt\), none of them"):
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
    (tmp_path / "f.jsonl").write_text(json.dumps(rows, indent=2))
    corpus = config(tmp_path)
    kinds = ["json", "jsonl", "jsonl", "jsonl", "jsonl", "json"]
    assert [split.kind for split in list_corpus(corpus).splits] == kinds
    assert answers(corpus) == ["a0", "a1", "a2"] * 6


def test_a_file_called_state_that_holds_rows_is_read(tmp_path):
    (tmp_path / "state.json").write_text('[{"question": "Capital of Ohio?", "answer": "Columbus"}]')
    assert answers(config(tmp_path)) == ["Columbus"]


def test_a_broken_line_that_begins_a_jsonl_file_is_a_bad_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('[broken\n{"question": "q", "answer": "a"}\n')
    (tmp_path / "b.jsonl").write_text('{broken\n{"question": "q", "answer": "a"}\n')
    corpus = config(tmp_path)
    listing = list_corpus(corpus)
    found = [p.status for s in listing.splits for p in examples(s, corpus, listing.formats[s.source])]
    assert found == ["bad_format", "ok"] * 2


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
    assert "corpus: 4 of its files cannot be read (corpus.on_bad_file: skip" in str(caught.value)
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
        ("a.jsonl", b'{"text": "a",}\n', 'row 0: is not valid JSON: .* near \'\\{"text": "a",\\}\''),
        ("a.json", b'[{"text": "a"}', "begins as a JSON array, but is not valid JSON"),
        ("a.json", b"[]", "is a JSON array without rows"),
        (
            "a.json",
            b'{\n "version": 1,\n "data": [\n  {"text": "a"}\n ]\n}',
            r"is one JSON object with the keys version, data, .*`data` holds 1: `jq -c '\.\[\"data\"\]\[\]'`",
        ),
        ("a.jsonl", b'{\n "text": "a"\n}\n{\n "text": "b"\n}\n', r"spread over several lines.*`jq -c \.`"),
        ("a.jsonl", '{"text": "a"}\n'.encode("utf-16"), "is UTF-16, expected UTF-8; `iconv -f UTF-16"),
        ("a.jsonl", '{"text": "a"}\n'.encode("utf-16-be"), "is UTF-16"),
        ("a.json", '[{"text": "a"}]'.encode("utf-32"), "is UTF-32"),
        (
            "a.jsonl",
            '{"text": "caf\xe9"}\n'.encode("latin-1"),
            r"row 0: the line is not UTF-8: byte 0xe9 at byte 13, in '.*caf\\xe9.*iconv -f LATIN1",
        ),
        ("a.json", '[{"text": "caf\xe9"}]'.encode("latin-1"), "is not UTF-8: byte 0xe9 at byte 14"),
        ("a.jsonl", gzip.compress(b'{"text": "a"}\n'), r"is gzip; call it \.jsonl\.gz"),
        ("a.json", b"PAR1xx", "is Parquet; call it .parquet"),
        ("a.parquet", b"version https://git-lfs", r"is not Parquet: 23 bytes .* a pointer of Git LFS"),
        ("dataset_info.json", b'{"features": {}}', "describes data sets .*, not rows; name the files"),
        ("state.json", b'{\n "_data_files": []}', "is the metadata of datasets.save_to_disk, not rows"),
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
        CorpusError, match=r"a\.parquet: format `alpaca` needs the columns instruction, output"
    ):
        list_corpus(config(tmp_path, format="alpaca"))
    with pytest.raises(CorpusError, match=r"no row has a column `task`, which corpus.group_by names"):
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


def late(path, name, rows=130):
    """Write a JSON lines file in which a column begins at row 111."""
    row = {"question": "q", "answer": "a"}
    lines = [row | ({name: "later"} if number > 110 else {}) for number in range(rows)]
    path.write_text("\n".join(json.dumps(line) for line in lines))


@pytest.mark.parametrize("key", ["group_by", "source_by"])
def test_a_label_may_begin_in_a_late_row(tmp_path, key):
    late(tmp_path / "a.jsonl", "task")
    corpus = config(tmp_path, **{key: "task"})
    listing = list_corpus(corpus)
    (split,) = listing.splits
    labels = [getattr(p, key.removesuffix("_by")) for p in examples(split, corpus, "question_answer")]
    assert labels.count("later") == 19
    with pytest.raises(CorpusError, match=r"no row has a column `Task`, .*; did you mean `task`"):
        list_corpus(config(tmp_path, **{key: "Task"}))


def test_a_renamed_column_may_begin_in_a_late_row(tmp_path):
    late(tmp_path / "a.jsonl", "sys")
    corpus = config(tmp_path, columns={"system": "sys"})
    listing = list_corpus(corpus)
    turns = [len(p.example.messages) for p in examples(listing.splits[0], corpus, listing.formats["corpus"])]
    assert turns == [2] * 111 + [3] * 19


def test_the_columns_of_a_format_may_begin_in_a_late_row(tmp_path):
    lines = [{"id": n} for n in range(110)] + [{"question": "q", "answer": "a"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert list_corpus(config(tmp_path)).formats == {"corpus": "question_answer"}
    assert list_corpus(config(tmp_path, format="question_answer")).formats == {"corpus": "question_answer"}
    write(tmp_path / "b.parquet")
    assert list_corpus(config(tmp_path)).formats == {"corpus": "question_answer"}


def test_each_source_has_its_own_format_columns_and_tags(tmp_path):
    turns = [{"who": "me", "said": "q"}, {"who": "it", "said": "a2"}]
    rows = {
        "a": {"instruction": "not this", "q": "q", "a": "a0"},
        "b": {"question": "q", "answer": "a1", "prompt": "p", "completion": "c"},
        "c": {"messages": turns},
    }
    for name, row in rows.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    tags = {"role_tag": "who", "content_tag": "said", "user_tag": "me", "assistant_tag": "it"}
    corpus = CorpusConfig(
        paths={name: str(tmp_path / f"{name}.jsonl") for name in rows},
        columns={"query": "q", "response": "a"},
        sources={
            "b": {"format": "question_answer", "columns": {}},
            "c": {"columns": {}, "tags": tags},
        },
    )
    assert list_corpus(corpus).formats == {"a": "query_response", "b": "question_answer", "c": "messages"}
    assert answers(corpus) == ["a0", "a1", "a2"]


@pytest.mark.parametrize("format", ["auto", "messages"])
def test_a_tag_that_is_no_key_of_a_turn_is_refused_with_the_file(tmp_path, format):
    (tmp_path / "a.jsonl").write_text('{"messages": [{"speaker": "user", "content": "q"}]}')
    says = r"a\.jsonl: corpus\.tags: role_tag: no turn of the first rows has the key `who`; they have speaker"
    with pytest.raises(CorpusError, match=says):
        list_corpus(config(tmp_path, format=format, tags={"role_tag": "who"}))


def test_a_rename_of_a_source_that_its_format_does_not_read_is_refused(tmp_path):
    write(tmp_path / "a.parquet")
    sources = {"corpus": {"format": "question_answer", "columns": {"prompt": "question"}}}
    with pytest.raises(
        CorpusError, match="of source `corpus`: `prompt` is not read by format `question_answer`"
    ):
        list_corpus(config(tmp_path, sources=sources))


def test_capitalised_columns_get_the_line_of_recipe(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"Instruction": "i", "Output": "o"}')
    line = r"a\.jsonl: no known format .* corpus\.columns: \{instruction: Instruction, output: Output\}"
    with pytest.raises(UnknownFormat, match=line):
        list_corpus(config(tmp_path))


def test_a_file_of_another_format_is_told_what_would_fit_it(tmp_path):
    write(tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"instruction": "i", "output": "o"}')
    with pytest.raises(CorpusError, match=r"b\.jsonl: .*needs the columns .*`alpaca` fits without a rename"):
        list_corpus(config(tmp_path, format="question_answer"))


TWINS = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], fields=[pa.field("x", pa.int64())] * 2)


@pytest.mark.parametrize(
    ("names", "arrays", "repeated"),
    [
        (["question", "answer", "answer"], [pa.array(["x"])] * 3, "answer"),
        (["meta"], [TWINS], "meta.x"),
        (["turns"], [pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), TWINS)], "turns.element.x"),
    ],
)
def test_columns_of_one_name_are_refused_by_name(tmp_path, names, arrays, repeated):
    pq.write_table(pa.Table.from_arrays(arrays, names), tmp_path / "a.parquet")
    with pytest.raises(UnreadableFile, match=f"a.parquet: has several columns of one name: `{repeated}`"):
        list_corpus(config(tmp_path))


def test_a_file_that_is_damaged_further_down_has_the_columns_of_its_first_rows(tmp_path):
    lines = b'{"question": "q", "answer": "a"}\n' * 100_000
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines)[:-20])
    write(tmp_path / "b.parquet")
    says = r"a\.jsonl\.gz: no row has a column `task`, which corpus\.group_by names"
    with pytest.raises(CorpusError, match=says):
        list_corpus(config(tmp_path, group_by="task"))


def test_an_id_that_no_file_has_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "t", "key": 1}\n')
    assert list_corpus(CorpusConfig(paths=str(tmp_path), id="key")).splits
    with pytest.raises(CorpusError, match=r"corpus\.id names"):
        list_corpus(CorpusConfig(paths=str(tmp_path), id="name"))
