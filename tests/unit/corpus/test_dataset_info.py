"""LLaMA-Factory's dataset_info.json as a corpus: each data set is read as its converters (0.9.5) read it."""

import json
from collections import Counter
from pathlib import Path

import pytest

from davir_ray.config import CorpusConfig
from davir_ray.corpus.listing import list_corpus
from davir_ray.corpus.reading import examples
from davir_ray.errors import RecipeError
from davir_ray.recipe import parse_recipe

INFO = json.loads((Path(__file__).parent / "data_sets" / "dataset_info.json").read_text())
ASK, ANSWER = {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}
ROWS = {
    "plain.json": [{"instruction": "Add.", "input": "2+2", "output": "4"}],
    "named.jsonl": [{"q": "Add.", "ctx": "2+2", "gold": "4", "sys": "Be brief.", "before": [["1+1?", "2"]]}],
    "chats/a.json": [
        {
            "messages": [
                ASK,
                {"role": "call", "content": '{"name": "f", "arguments": {}}'},
                {"role": "tool", "content": "4"},
                ANSWER,
            ],
            "system": "Be brief.",
            "tools": '[{"name": "f"}]',
        }
    ],
    "ranked.json": [{"instruction": "Add.", "input": "2+2", "good": "4", "bad": "5"}],
    "ranked_chats.json": [
        {
            "conversations": [{"from": "human", "value": "2+2?"}],
            "chosen": {"from": "gpt", "value": "4"},
            "rejected": {"from": "gpt", "value": "5"},
        }
    ],
    "kto.json": [
        {"ask": "2+2?", "said": "4", "wanted": True},
        {"ask": "2+2?", "said": "5", "wanted": False},
        {"ask": "2+2?", "said": "6", "wanted": "perhaps"},
    ],
    "texts.json": [{"body": "Two and two are four."}],
}


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "chats").mkdir()
    for name, rows in ROWS.items():
        text = json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name).write_text(text)
    (tmp_path / "dataset_info.json").write_text(json.dumps(INFO))
    return tmp_path


def corpus(folder: Path, *datasets: str, **settings) -> CorpusConfig:
    tree = {"dataset_info": str(folder), "datasets": list(datasets), **settings}
    return parse_recipe(
        {"corpus": tree, "models": {"base": "b"}, "score": {"name": "base_loss"}}, "r.yaml"
    ).corpus


def rows_of(config: CorpusConfig) -> dict[str, list]:
    listing = list_corpus(config)
    found: dict[str, list] = {}
    for split in listing.splits:
        found.setdefault(split.source, []).extend(examples(split, config, listing.formats[split.source]))
    return found


def test_every_data_set_is_a_source_and_its_rows_are_what_it_says(folder):
    found = rows_of(corpus(folder, *INFO))
    assert set(found) == set(INFO)
    read = {name: rows[0].example for name, rows in found.items()}
    asked = {"role": "user", "content": "Add.\n2+2"}
    assert read["plain"].messages == (asked, ANSWER)
    before = ({"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"})
    assert read["named"].messages == ({"role": "system", "content": "Be brief."}, *before, asked, ANSWER)
    roles = [turn["role"] for turn in read["chats"].messages]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]
    assert read["chats"].messages[2]["tool_calls"][0]["function"]["name"] == "f"
    assert read["chats"].tools == ({"name": "f"},)
    for name in ("ranked", "ranked_chats"):
        assert [side[-1]["content"] for side in (read[name].messages, read[name].rejected)] == ["4", "5"]
    assert read["pretraining"].text == "Two and two are four."


def test_every_row_of_a_kto_file_ends_in_one_place(folder):
    found = rows_of(corpus(folder, "kto"))["kto"]
    assert Counter(row.status for row in found) == {"ok": 1, "undesirable": 1, "bad_format": 1}
    assert found[2].reason == "column `kto_tag`: expected true or false, found str 'perhaps'"


def test_what_a_run_writes_down_needs_the_file_no_more(folder):
    config = corpus(folder, "plain", "kto", limit=5)
    assert config.limit == 5
    assert (config.dataset_info, config.datasets) == (None, ())
    (folder / "dataset_info.json").unlink()
    assert CorpusConfig.model_validate(config.model_dump(mode="json")) == config
    assert set(rows_of(config)) == {"plain", "kto"}


def test_a_folder_or_the_file_may_be_named_and_openai_is_read_too(folder):
    INFO_OF = {"file_name": "m.json", "formatting": "openai", "columns": {"messages": "messages"}}
    (folder / "info.json").write_text(json.dumps({"m": INFO_OF}))
    (folder / "m.json").write_text(json.dumps([{"messages": [ASK, ANSWER]}]))
    tree = {"dataset_info": str(folder / "info.json"), "datasets": ["m"]}
    config = parse_recipe(
        {"corpus": tree, "models": {"base": "b"}, "score": {"name": "base_loss"}}, "r"
    ).corpus
    assert rows_of(config)["m"][0].example.messages == (ASK, ANSWER)


def test_a_cloud_file_is_named_as_it_is(tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"c": {"cloud_file_name": "s3://bucket/rows.jsonl"}}')
    assert corpus(tmp_path, "c").paths == {"c": ("s3://bucket/rows.jsonl",)}


REFUSED = {
    "images": (
        {"file_name": "x", "columns": {"prompt": "p", "response": "r", "images": "i"}},
        "images: images, video",
    ),
    "audios": (
        {"file_name": "x", "formatting": "sharegpt", "columns": {"audios": "a"}},
        "audios: images, video",
    ),
    "hub": ({"hf_hub_url": "org/name"}, r"hf_hub_url: .* hf://datasets/org/name/\*\*/\*\.parquet"),
    "modelscope": ({"ms_hub_url": "x", "file_name": "x"}, "ms_hub_url: rows on ModelScope are not read"),
    "script": ({"script_url": "load.py"}, "script_url: a script is not run"),
    "samples": ({"file_name": "x", "num_samples": 5}, "num_samples: LLaMA-Factory draws rows anew"),
    "subset": ({"file_name": "x", "subset": "s"}, "subset: a subset is one of the hub"),
    "split": ({"file_name": "x", "split": "test"}, "split: found 'test'"),
    "no place": (
        {"formatting": "alpaca"},
        "file_name: expected the name of a file or a folder, found nothing",
    ),
    "formatting": (
        {"file_name": "x", "formatting": "chatml"},
        "formatting: expected alpaca, sharegpt or openai",
    ),
    "a key": (
        {"file_name": "x", "rankings": True},
        "rankings: is no key of a data set; did you mean `ranking`",
    ),
    "a column": ({"file_name": "x", "columns": {"respons": "r"}}, "respons: is no column .* `response`"),
    "another formatting": (
        {"file_name": "x", "columns": {"prompt": "p", "response": "r", "messages": "m"}},
        "columns: messages: is of the other formatting",
    ),
    "a tag": (
        {"file_name": "x", "formatting": "sharegpt", "tags": {"role": "r"}},
        "tags: role: is no tag",
    ),
    "no sides": ({"file_name": "x", "ranking": True}, "columns: lack chosen, which rows with `ranking` have"),
    "a pair of kto": (
        {"file_name": "x", "ranking": True, "columns": dict.fromkeys(("chosen", "rejected", "kto_tag"), "c")},
        "kto_tag marks single answers",
    ),
    "no response": ({"file_name": "x", "columns": {"prompt": "p", "query": "q"}}, "columns: lack response"),
    "ranking": ({"file_name": "x", "ranking": "yes"}, "ranking: expected true or false, found 'yes'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_obeyed_is_refused_by_name(tmp_path, what):
    entry, says = REFUSED[what]
    (tmp_path / "dataset_info.json").write_text(json.dumps({"d": entry}))
    with pytest.raises(RecipeError, match=rf"dataset_info\.json: d: .*{says}"):
        corpus(tmp_path, "d")


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"dataset_info": "none"}, "corpus.datasets: expected a list of data sets"),
        ({"dataset_info": "nowhere", "datasets": ["a"]}, "nowhere/.*: there is no such file"),
        ({"datasets": ["a"], "paths": "x"}, "datasets: are those of a `dataset_info`, which is not given"),
        ({"dataset_info": "none", "datasets": ["a"], "paths": "x"}, "paths: stands beside `dataset_info`"),
        (
            {"dataset_info": "none", "datasets": ["plane"]},
            "describes no data set `plane`; did you mean `plain`",
        ),
        ({}, "names no files; give `paths`, or `dataset_info` and `datasets`"),
    ],
)
def test_a_recipe_that_names_no_data_set_is_told_what_to_name(tmp_path, monkeypatch, tree, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "dataset_info.json").write_text(json.dumps(INFO))
    with pytest.raises(RecipeError, match=says):
        parse_recipe({"corpus": tree, "models": {"base": "b"}}, "r.yaml")


def test_a_file_that_describes_nothing_is_refused(tmp_path):
    for text, says in (
        ("{", "cannot be read as JSON"),
        ("[]", "expected an object of data sets, found a list of 0"),
    ):
        (tmp_path / "dataset_info.json").write_text(text)
        with pytest.raises(RecipeError, match=says):
            corpus(tmp_path, "a")
