"""Rows for LLaMA-Factory, and the dataset_info.json that its README documents (data/README.md, 0.9.5)."""

import json
from pathlib import Path

import pytest

from davir_ray.coreset.llama_factory import to_llama_factory
from davir_ray.corpus.example import Example
from tests.unit.coreset.test_export import export_of, lines_of, write_all, write_rows
from tests.unit.coreset.test_shapes import CHAT, PAIR, TOKENS, turns

CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}],
}
REPLY = {"role": "tool", "content": "7"}
ASKED = {"role": "user", "content": "q"}
SYSTEM = {"role": "system", "content": "Be brief."}


def said(*pairs: tuple[str, str]) -> list[dict]:
    return [{"from": speaker, "value": text} for speaker, text in pairs]


def test_a_conversation_has_its_system_message_and_its_tools_beside_it():
    row = to_llama_factory(Example(messages=(SYSTEM, *CHAT.messages), tools=CHAT.tools))
    assert row == {
        "conversations": said(("human", "q"), ("gpt", "a"), ("human", "r"), ("gpt", "b")),
        "system": "Be brief.",
        "tools": '[{"name": "f"}]',
    }


def test_a_call_is_the_json_of_the_call():
    row = to_llama_factory(Example(messages=(ASKED, CALL, REPLY, turns("", "b")[1])))
    assert [turn["from"] for turn in row["conversations"]] == ["human", "function_call", "observation", "gpt"]
    assert json.loads(row["conversations"][1]["value"]) == {"name": "f", "arguments": {"a": 1}}
    both = CALL | {"tool_calls": CALL["tool_calls"] * 2}
    row = to_llama_factory(Example(messages=(ASKED, both)))
    assert len(json.loads(row["conversations"][1]["value"])) == 2


def test_a_pair_is_a_conversation_with_two_endings():
    row = to_llama_factory(PAIR)
    assert row["conversations"] == said(("human", "q"), ("gpt", "a"), ("human", "r"))
    assert (row["chosen"], row["rejected"]) == (*said(("gpt", "b")), *said(("gpt", "c")))
    with_system = Example(messages=(SYSTEM, *turns("q", "a")), rejected=(SYSTEM, *turns("q", "b")))
    assert to_llama_factory(with_system)["conversations"] == said(("human", "q"))


LEFT_OUT = {
    "tokens": TOKENS,
    "text": Example(text="t"),
    "variables of the template": Example(messages=turns("q", "a"), chat_template_kwargs={"x": 1}),
    "a turn of weight 0": Example(
        messages=(*turns("q", "a", "r", "b")[:3], turns("", "b")[1] | {"weight": 0})
    ),
    "who asks twice": Example(messages=(ASKED, ASKED, turns("", "a")[1])),
    "who answers first": Example(messages=turns("q", "a", "r", "b")[1:]),
    "two replies": Example(messages=(ASKED, CALL, REPLY, REPLY, turns("", "a")[1])),
    "words beside a call": Example(messages=(ASKED, CALL | {"content": "Let me see."})),
    "a second system message": Example(messages=(ASKED, SYSTEM, turns("", "a")[1])),
    "sides that part early": Example(messages=turns("q", "a", "r", "b"), rejected=turns("q", "x", "y", "z")),
    "a longer side": Example(messages=turns("q", "a"), rejected=turns("q", "b", "r", "c")),
    "a system message of one side": Example(messages=(SYSTEM, *turns("q", "a")), rejected=turns("q", "b")),
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_it_would_pass_over_or_read_otherwise_is_left_out(what):
    assert to_llama_factory(LEFT_OUT[what]) is None


COLUMNS = {"prompt", "query", "response", "history", "messages", "system", "tools"} | {
    "chosen",
    "rejected",
    "kto_tag",
}
TAGS = {
    "role_tag",
    "content_tag",
    "user_tag",
    "assistant_tag",
    "observation_tag",
    "function_tag",
    "system_tag",
}
KEYS = {"file_name", "formatting", "ranking", "columns", "tags"}


def documented(info: dict, folder: Path) -> dict[str, list[dict]]:
    """Read what dataset_info.json names as its README says; return the rows of each data set."""
    found = {}
    for name, entry in info.items():
        assert set(entry) <= KEYS
        assert entry["formatting"] in ("alpaca", "sharegpt")
        assert set(entry["columns"]) <= COLUMNS
        assert set(entry.get("tags", ())) <= TAGS
        files = sorted((folder / entry["file_name"]).iterdir())
        assert len({file.suffix for file in files}) == 1, (
            "all files of a folder are read, as the first one is"
        )
        if files[0].suffix == ".jsonl":
            rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        else:
            import pyarrow.parquet as pq

            rows = [row for file in files for row in pq.read_table(file).to_pylist()]
        assert all(column in row for row in rows for column in entry["columns"].values()), name
        found[name] = rows
    return found


def info_of(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "run/exports/dataset_info.json").read_text())


FORMATS = ("parquet", "jsonl", "llama_factory", "trl", "ids")


def test_dataset_info_names_what_it_reads_and_nothing_else(tmp_path):
    rows = [{"instruction": f"i{n}", "input": "", "output": "o", "lang": "en"} for n in range(3)]
    export = export_of(tmp_path, write_rows(tmp_path / "c.jsonl", rows), FORMATS, rows_per_file=2)
    write_all(export)
    info = info_of(tmp_path)
    found = documented(info, tmp_path / "run/exports")
    assert {name: len(rows) for name, rows in found.items()} == {"coreset": 3, "jsonl": 3, "llama_factory": 3}
    assert info["coreset"] == {
        "file_name": "../coreset",
        "formatting": "alpaca",
        "columns": {"prompt": "instruction", "query": "input", "response": "output"},
    }
    assert info["llama_factory"]["tags"]["user_tag"] == "human"


def test_a_source_of_which_all_rows_are_left_out_is_not_named(tmp_path):
    paths = {
        "chats": write_rows(tmp_path / "m.jsonl", [{"messages": list(turns("q", "a"))}]),
        "texts": write_rows(tmp_path / "t.jsonl", [{"text": "plain"}]),
    }
    write_all(export_of(tmp_path, paths, ("llama_factory",)))
    assert set(info_of(tmp_path)) == {"llama_factory-chats"}


def test_pairs_are_ranked_and_each_source_is_a_data_set(tmp_path):
    paths = {
        "a,b": write_rows(
            tmp_path / "p.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b", "system": "s"}]
        ),
        "chats": write_rows(tmp_path / "m.jsonl", [{"messages": list(turns("q", "a"))}]),
        "none": write_rows(tmp_path / "n.jsonl", [{"text": ""}]),
    }
    write_all(export_of(tmp_path, paths, FORMATS))
    info = info_of(tmp_path)
    documented(info, tmp_path / "run/exports")
    assert set(info) == {"coreset-a%2Cb", "jsonl-a%2Cb", "llama_factory-a%2Cb", "llama_factory-chats"}
    assert all(entry["ranking"] for name, entry in info.items() if name.endswith("a%2Cb"))
    assert info["coreset-a%2Cb"]["columns"] == {
        "prompt": "prompt",
        "chosen": "chosen",
        "rejected": "rejected",
        "system": "system",
    }
    assert "ranking" not in info["llama_factory-chats"]


def test_a_conversation_among_pairs_is_left_out_and_that_is_said(tmp_path, capsys):
    pair = {"messages": list(turns("q", "a")), "rejected_response": "b"}
    path = write_rows(tmp_path / "c.jsonl", [pair, {"messages": list(turns("r", "a"))}])
    export = export_of(tmp_path, path, ("llama_factory",))
    write_all(export)
    (row,) = map(json.loads, lines_of(export, "llama_factory"))
    assert (row["davir_rank"], row["rejected"]) == (1, {"from": "gpt", "value": "b"})
    assert "warning: exports/llama_factory: leaves out rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "i", "output": "o", "tools": '[{"name": "f"}]'},
        {"prompt": turns("q")[:1], "completion": list(turns("q", "a"))[1:]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    ],
)
def test_own_rows_that_it_would_read_otherwise_are_not_named(tmp_path, row):
    write_all(export_of(tmp_path, write_rows(tmp_path / "c.jsonl", [row]), ("parquet", "jsonl")))
    assert not (tmp_path / "run/exports/dataset_info.json").exists()
