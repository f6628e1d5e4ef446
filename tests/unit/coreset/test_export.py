"""What is exported, read again: every export of every corpus format, without Ray."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from davir_ray.config import CorpusConfig, ExportConfig
from davir_ray.coreset.dataset_info import write_dataset_info
from davir_ray.coreset.export import CHOSEN, SIDE, Template, files_column, folder_name, places_within, shaped
from davir_ray.coreset.export_plan import Export
from davir_ray.coreset.ray_export import _schemas, deal_files, fetch_rows, write_empty, write_file
from davir_ray.corpus.example import Example
from davir_ray.corpus.formats import FORMATS
from davir_ray.corpus.listing import list_corpus
from davir_ray.corpus.reading import examples
from davir_ray.schema import Status
from davir_ray.tokens.tool_calls import CallForm

EXPORTS = ("parquet", "jsonl", "messages", "trl")


def export_of(tmp_path: Path, paths, formats=EXPORTS, **config) -> Export:
    """Say what to export of a corpus."""
    corpus = CorpusConfig(paths=paths)
    listing = list_corpus(corpus)
    return Export(
        corpus,
        listing.formats,
        listing.splits,
        ExportConfig(formats=formats, **config),
        str(tmp_path / "run"),
        Template({}),
    )


def parsed_of(export: Export) -> list:
    """Parse the corpus: (split, row) of every row that is ok, in order."""
    return [
        (split, one)
        for split, place in enumerate(export.splits)
        for one in examples(place, export.corpus, export.formats[place.source])
        if one.status == Status.OK
    ]


def write_all(export: Export) -> list:
    """Export every row that is ok, as the Ray stage does; return what was parsed."""
    parsed = parsed_of(export)
    folder = export.folder_of[[split for split, _ in parsed]] if parsed else np.array([], np.int64)
    place = places_within(folder, np.zeros(len(export.sources), np.int64))
    rows = [
        {
            "split": split,
            "row": one.row,
            "place": place[index],
            "davir_rank": index + 1,
            "davir_score": -float(index),
            "example_id": one.example_id,
            "source": one.source,
            "id": one.id,
        }
        for index, (split, one) in enumerate(parsed)
    ]
    table = pa.Table.from_pylist(rows, schema=CHOSEN)
    counts = np.bincount(table["split"].to_numpy(), minlength=len(export.splits))[None]
    layout = export.layout(counts)
    chosen = {
        split: table.filter(pa.array(table["split"].to_numpy() == split))
        for split in np.flatnonzero(counts[0])
    }
    fetched = {split: fetch_rows(export, int(split), one) for split, one in chosen.items()}
    schemas = _schemas(export, {split: seen for split, (seen, _) in fetched.items()})
    dealt = deal_files(export, layout, *[one for _, one in fetched.values()])
    for pieces in dealt:
        write_file(export, layout, schemas, pieces)
    for folder, count in enumerate(layout.rows):
        if not count:
            write_empty(export, layout, folder)
    write_dataset_info(export, layout, schemas)
    return parsed


def ids_in(paths, **config) -> list[bytes]:
    corpus = CorpusConfig(paths=paths, **config)
    listing = list_corpus(corpus)
    found = [one for s in listing.splits for one in examples(s, corpus, listing.formats[s.source])]
    assert {one.status for one in found} <= {Status.OK}, found
    return [one.example_id for one in found]


def write_rows(path: Path, rows: list[dict]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def lines_of(export: Export, name: str) -> list[str]:
    files = sorted(Path(export.folder(name)).rglob("part-*"))
    return [line for file in files for line in file.read_text().splitlines()]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "json"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_export_of_every_format_is_read_again_as_the_same_examples(name, suffix, tmp_path):
    path = write_rows(tmp_path / f"corpus.{suffix}", [json.loads(FORMATS[name].example)])
    export = export_of(tmp_path, path)
    assert export.formats == {"corpus": name}
    expected = [one.example_id for _, one in write_all(export)]
    assert len(expected) == 1
    for written in EXPORTS:
        assert ids_in(export.folder(written)) == expected, written


CALLS = [{"station": "Ulm", "n": 1}, {"station": ["Ulm", "Bonn"]}, {"n": 2.5}, {"n": 1}]


def call(arguments, ask="Trains?"):
    function = {"name": "find", "arguments": arguments}
    answer = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    return {"messages": [{"role": "user", "content": ask}, answer], "n": len(str(arguments))}


def test_tool_arguments_of_different_types_are_said_and_read_again(tmp_path, capsys):
    path = write_rows(tmp_path / "calls.jsonl", [call(one, f"{i}") for i, one in enumerate(CALLS)])
    export = export_of(tmp_path, path)
    expected = [one.example_id for _, one in write_all(export)]
    told = "warning: column `messages`: its values have no one type in Parquet: it is written as JSON text"
    assert told in capsys.readouterr().err
    table = pq.read_table(export.folder("parquet"))
    assert table.schema.field("messages").type == pa.string()
    assert table.schema.field("n").type == pa.int64()
    for written in EXPORTS:
        assert ids_in(export.folder(written)) == expected, written
    again = export_of(tmp_path / "again", export.folder("parquet"))
    write_all(again)
    assert [json.loads(line) for line in lines_of(again, "jsonl")] == [
        call(one, f"{i}") for i, one in enumerate(CALLS)
    ]
    assert ids_in(again.folder("parquet")) == expected


def test_numbers_within_structures_keep_their_kind_across_files(tmp_path):
    for name, arguments in (("a", {"n": 1}), ("b", {"n": 2.5})):
        write_rows(tmp_path / "c" / f"{name}.parquet", [call(arguments)])
    export = export_of(tmp_path, str(tmp_path / "c"))
    expected = [one.example_id for _, one in write_all(export)]
    assert ids_in(export.folder("parquet")) == expected
    assert expected != [expected[0], expected[0]]


def test_json_lines_go_through_byte_for_byte_and_scores_stand_beside_them(tmp_path):
    lines = [
        b'{"question":"a" ,  "answer" : "\\u00e9\xc3\xa9", "n": 1.50, "x": NaN, "s": "\\ud800"}',
        b'  {"answer": "b", "question": "2", "davir_score": 7, "e": {}}',
        b'{"question": "c", "answer": "1e400", "big": 123456789012345678901234567890}',
    ]
    (tmp_path / "c.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n\n".join(lines) + b"\n")
    export = export_of(tmp_path, str(tmp_path / "c.jsonl"), ("jsonl",))
    parsed = write_all(export)
    assert (tmp_path / "run/exports/jsonl/part-00000.jsonl").read_bytes() == b"".join(
        line + b"\n" for line in lines
    )
    scores = [json.loads(line) for line in lines_of(export, "scores")]
    assert [list(row) for row in scores] == [list(SIDE)] * 3
    assert scores[1] == {
        "davir_score": -1.0,
        "davir_rank": 2,
        "davir_example_id": parsed[1][1].example_id.hex(),
        "davir_source": "corpus",
        "davir_file": str(tmp_path / "c.jsonl"),
        "davir_row": 1,
    }


def no_constant(name):
    raise AssertionError(f"{name} is not JSON")


def test_what_json_cannot_hold_is_null_or_base64_and_said_once(tmp_path, capsys):
    rows = [
        {
            "question": "a",
            "answer": f"{i}",
            "v": [float("nan"), 1.0],
            "m": {"i": float("-inf")},
            "raw": b"\xff\x00",
        }
        for i in range(3)
    ]
    export = export_of(tmp_path, write_rows(tmp_path / "c.parquet", rows), ("jsonl", "parquet"))
    write_all(export)
    written = [json.loads(line, parse_constant=no_constant) for line in lines_of(export, "jsonl")]
    assert written == [
        {
            "question": "a",
            "answer": f"{i}",
            "v": [None, 1.0],
            "m": {"i": None},
            "raw": base64.b64encode(b"\xff\x00").decode(),
        }
        for i in range(3)
    ]
    assert capsys.readouterr().err.splitlines() == [
        "warning: exports/jsonl: column `m` has NaN or Infinity, which JSON cannot hold: written as null",
        "warning: exports/jsonl: column `raw` has bytes, which JSON cannot hold: written as base64",
        "warning: exports/jsonl: column `v` has NaN or Infinity, which JSON cannot hold: written as null",
    ]
    assert pq.read_table(export.folder("parquet"))["raw"].to_pylist() == [b"\xff\x00"] * 3


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "json"])
def test_an_empty_core_set_keeps_the_columns(tmp_path, suffix):
    path = write_rows(
        tmp_path / f"c.{suffix}", [{"text": " ", "n": 1, "meta": {"a": [1.5]}, "davir_score": 2}]
    )
    export = export_of(tmp_path, path)
    assert write_all(export) == []
    table = pq.read_table(tmp_path / "run/coreset/part-00000.parquet")
    assert table.num_rows == 0
    assert table.column_names == ["text", "n", "meta", *SIDE]
    assert table.schema.field("meta").type == pa.struct({"a": pa.list_(pa.float64())})
    for name in ("jsonl", "scores", "messages", "trl"):
        assert (tmp_path / f"run/exports/{name}/part-00000.jsonl").read_bytes() == b""


SOURCES = {
    "alpaca": [{"instruction": "i", "output": "o", "a": 1}],
    "a/b": [{"text": "t", "b": 2}],
    "none": [{"text": ""}],
}


def test_sources_have_a_folder_each_and_are_not_padded(tmp_path):
    paths = {
        name: write_rows(tmp_path / f"{i}.jsonl", rows) for i, (name, rows) in enumerate(SOURCES.items())
    }
    corpus = export_of(tmp_path, paths, ("parquet", "jsonl", "trl"))
    write_all(corpus)
    tables = {
        file.parent.name: pq.read_table(file)
        for file in (tmp_path / "run/coreset").glob("*/part-00000.parquet")
    }
    assert {name: table.column_names[:-6] for name, table in tables.items()} == {
        "alpaca": ["instruction", "output", "a"],
        "a%2Fb": ["text", "b"],
        "none": ["text"],
    }
    assert tables["alpaca"]["davir_source"].to_pylist() == ["alpaca"]
    assert {name: table.num_rows for name, table in tables.items()} == {"alpaca": 1, "a%2Fb": 1, "none": 0}
    assert (tmp_path / "run/exports/jsonl/a%2Fb/part-00000.jsonl").read_text() == '{"text": "t", "b": 2}\n'


def test_one_schema_for_all_sources_where_it_is_asked_for(tmp_path):
    paths = {
        name: write_rows(tmp_path / f"{i}.jsonl", rows) for i, (name, rows) in enumerate(SOURCES.items())
    }
    write_all(export_of(tmp_path, paths, ("parquet",), one_schema=True))
    table = pq.read_table(tmp_path / "run/coreset/part-00000.parquet")
    assert set(table.column_names) == {"instruction", "output", "a", "text", "b", *SIDE}
    assert table["davir_source"].to_pylist() == ["a/b", "alpaca"]


def test_ids_are_the_users_own_where_named_and_places_elsewhere(tmp_path):
    path = write_rows(
        tmp_path / "c.jsonl",
        [{"text": "a", "meta": {"key": "k\n1"}}, {"text": "b"}, {"text": "c", "meta": {"key": 7}}],
    )
    for own, names in (
        (None, [f"{path}:0", f"{path}:1", f"{path}:2"]),
        ("meta.key", ["k\\n1", f"{path}:1", "7"]),
    ):
        corpus = CorpusConfig(paths=path, id=own)
        listing = list_corpus(corpus)
        export = Export(
            corpus,
            listing.formats,
            listing.splits,
            ExportConfig(formats=("ids",)),
            str(tmp_path / str(own)),
            Template({}),
        )
        parsed = write_all(export)
        assert [one.id for _, one in parsed] == ([None] * 3 if own is None else ["k\n1", None, "7"])
        hashes = [one.example_id.hex() for _, one in parsed]
        assert [line.split("\t") for line in lines_of(export, "ids")] == [
            list(pair) for pair in zip(names, hashes, strict=True)
        ]


def test_files_are_ranges_of_places(tmp_path):
    path = write_rows(tmp_path / "c.jsonl", [{"text": f"{i}"} for i in range(5)])
    export = export_of(tmp_path, path, ("jsonl",), rows_per_file=2)
    write_all(export)
    files = sorted((tmp_path / "run/exports/jsonl").iterdir())
    assert [len(file.read_text().splitlines()) for file in files] == [2, 2, 1]
    assert [json.loads(line)["text"] for line in lines_of(export, "jsonl")] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("name", "folder"),
    [("gsm8k", "gsm8k"), ("a/b", "a%2Fb"), ("..", "%2E."), ("a.b", "a.b"), ("x=y", "x%3Dy"), ("_x", "%5Fx")],
)
def test_a_source_is_a_folder_whatever_it_is_called(name, folder):
    assert folder_name(name) == folder


def test_no_source_of_a_core_set_is_passed_over_when_it_is_read_again(tmp_path):
    names = ("_x", ".y", "..", "a")
    paths = {name: write_rows(tmp_path / f"{at}.jsonl", [{"text": name}]) for at, name in enumerate(names)}
    write_all(export_of(tmp_path, paths))
    read = list_corpus(CorpusConfig(paths=str(tmp_path / "run/coreset"))).splits
    assert len({split.path for split in read}) == len(names)


PAIR = Example(
    messages=({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}),
    rejected=({"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}),
)
LOSSES = {"frozen_chosen_loss": 2.5, "frozen_rejected_loss": 4.0}


def test_frozen_log_probabilities_stand_in_their_own_export_alone():
    plain, frozen = (
        json.loads(shaped(PAIR, LOSSES, name, Template({})) or "") for name in ("trl", "trl_frozen")
    )
    assert list(plain) == ["prompt", "chosen", "rejected"]
    assert frozen == plain | {"ref_chosen_logps": -2.5, "ref_rejected_logps": -4.0}
    assert shaped(PAIR, LOSSES | {"frozen_rejected_loss": None}, "trl_frozen", Template({})) is None


@pytest.mark.parametrize("name", ["trl", "trl_frozen"])
def test_the_variables_of_the_template_go_with_what_trl_renders(name):
    kwargs = {"enable_thinking": False}
    assert json.loads(shaped(PAIR, LOSSES, name, Template(kwargs)) or "")["chat_template_kwargs"] == kwargs
    assert json.loads(shaped(Example(text="t"), LOSSES, "trl", Template(kwargs)) or "") == {"text": "t"}


@pytest.mark.parametrize("name", ["trl", "trl_frozen"])
def test_the_variables_of_a_row_go_before_those_of_the_recipe_as_in_measuring(name):
    own = replace(PAIR, chat_template_kwargs={"enable_thinking": False, "x": 2})
    row = json.loads(shaped(own, LOSSES, name, Template({"x": 1, "y": 3})) or "")
    assert row["chat_template_kwargs"] == {"enable_thinking": False, "x": 2, "y": 3}


@pytest.mark.parametrize("name", ["trl", "trl_frozen"])
@pytest.mark.parametrize("side", ["messages", "rejected"])
def test_a_pair_with_a_side_that_ends_in_weight_0_is_in_no_export_for_trl(name, side):
    ended = [*getattr(PAIR, side)[:-1], {"role": "assistant", "content": "c", "weight": 0}]
    assert shaped(replace(PAIR, **{side: tuple(ended)}), LOSSES, name, Template({})) is None


def called(arguments):
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": arguments}}],
    }


def test_calls_go_to_trl_in_the_form_that_the_template_takes_of_rows_with_and_without_tools():
    template = Template({}, (CallForm("text"), CallForm("object", null_content=True)))
    bare = replace(PAIR, messages=(PAIR.messages[0], called({"a": 1})), rejected=None)
    tooled = replace(bare, messages=(PAIR.messages[0], called('{"a": 1}')), tools=({"name": "f"},))
    rows = [json.loads(shaped(one, LOSSES, "trl", template) or "") for one in (bare, tooled)]
    assert [row["completion"] for row in rows] == [
        [called('{"a": 1}')],
        [called({"a": 1}) | {"content": None}],
    ]


def test_a_rejected_call_that_is_no_json_leaves_its_pair_out_for_trl():
    broken = replace(PAIR, rejected=(PAIR.messages[0], called("{")))
    assert shaped(broken, LOSSES, "trl", Template({}, (CallForm("object"), CallForm()))) is None


def test_files_of_rows_do_not_depend_on_the_splits_of_files():
    few = files_column(np.array([1, 0, 1], dtype=np.int32), ["a", "b"])
    many = files_column(np.array([3, 1, 2], dtype=np.int32), ["a", "a", "b", "b", "c"])
    assert few.to_pylist() == many.to_pylist() == ["b", "a", "b"]
    assert few.dictionary.to_pylist() == many.dictionary.to_pylist() == ["a", "b"]


def test_a_margin_stands_beside_pairs_alone():
    row = json.loads(shaped(PAIR, LOSSES | {"davir_score": 1.5}, "trl_reward", Template({})) or "")
    assert row == json.loads(shaped(PAIR, LOSSES, "trl", Template({})) or "") | {"margin": 1.5}
    alone = replace(PAIR, rejected=None)
    assert shaped(alone, LOSSES | {"davir_score": 1.5}, "trl_reward", Template({})) is None


def test_scores_have_the_users_id_or_the_position_in_the_file(tmp_path):
    rows = [{"text": "a", "key": "k1"}, {"text": "b"}]
    corpus = CorpusConfig(paths=write_rows(tmp_path / "c.jsonl", rows), id="key")
    listing = list_corpus(corpus)
    config, folder = ExportConfig(formats=("id_scores",)), str(tmp_path / "run")
    export = Export(corpus, listing.formats, listing.splits, config, folder, Template({}))
    write_all(export)
    lines = [json.loads(line) for line in lines_of(export, "id_scores")]
    assert [(line["id"], line["davir_score"], line["davir_rank"]) for line in lines] == [
        ("k1", 0.0, 1),
        (1, -1.0, 2),
    ]
    assert set(lines[0]) == {"id", *SIDE}
