"""Turns whose keys and roles have names of their own, and conversations written as JSON text."""

import json

import pytest

from davir_ray.config import TagsConfig
from davir_ray.corpus.formats import FORMATS
from davir_ray.corpus.raw_turns import check_tags, usual_turns
from davir_ray.errors import CorpusError

TALK = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]


def messages(name, row, **tags):
    return list(FORMATS[name].parse(usual_turns(row, TagsConfig(**tags))).messages)


def test_turn_keys_and_roles_are_mapped():
    row = {
        "conversations": [
            {"speaker": "rules", "text": "Be brief."},
            {"speaker": "Alice", "text": "2+2?", "role": "student"},
            {"speaker": "call", "text": '{"name": "add", "arguments": {}}'},
            {"speaker": "result", "text": "4"},
            {"speaker": "bot", "text": "4"},
        ]
    }
    found = messages(
        "sharegpt",
        row,
        role_tag="speaker",
        content_tag="text",
        user_tag="Alice",
        assistant_tag="bot",
        observation_tag="result",
        function_tag="call",
        system_tag="rules",
    )
    assert [turn["role"] for turn in found] == ["system", "user", "assistant", "tool", "assistant"]
    assert found[1] == {"role": "user", "content": "2+2?"}
    assert found[2]["tool_calls"] == [{"type": "function", "function": {"name": "add", "arguments": {}}}]


@pytest.mark.parametrize("key", ["role", "from"])
def test_roles_alone_can_be_mapped(key):
    row = {"messages": [{key: "Q", "content": "2+2?"}, {key: "A", "content": "4"}]}
    assert messages("messages", row, user_tag="Q", assistant_tag="A") == TALK


def test_a_single_turn_of_a_pair_is_mapped_and_tools_are_not():
    row = {
        "conversations": [{"who": "user", "value": "q"}],
        "chosen": {"who": "assistant", "value": "a"},
        "rejected": {"who": "assistant", "value": "b"},
        "tools": [{"who": "tool"}],
    }
    example = FORMATS["preference_sharegpt"].parse(usual_turns(row, TagsConfig(role_tag="who")))
    assert [turn["content"] for turn in (*example.messages, *example.rejected)] == ["q", "a", "q", "b"]
    assert example.tools == ({"who": "tool"},)


def test_a_conversation_as_json_text_is_the_conversation():
    for column, name in (("messages", "messages"), ("conversations", "sharegpt")):
        assert messages(name, {column: json.dumps(TALK)}) == TALK


@pytest.mark.parametrize("text", ["hello", "[broken", "[" * 5000, json.dumps("a"), "[" * 100 + "]" * 100])
def test_other_text_stays_text_for_the_format_to_refuse(text):
    assert usual_turns({"messages": text}, TagsConfig()) == {"messages": text}


def test_a_response_that_is_a_json_list_stays_text():
    assert usual_turns({"prompt": "List.", "completion": "[1, 2]"}, TagsConfig())["completion"] == "[1, 2]"


def test_a_key_that_no_turn_has_is_refused():
    check_tags(TagsConfig(role_tag="role"), [{"messages": json.dumps(TALK)}])
    with pytest.raises(
        CorpusError,
        match="role_tag: no turn of the first rows has the key `speaker`; they have role, content",
    ):
        check_tags(TagsConfig(role_tag="speaker"), [{"messages": TALK}])
