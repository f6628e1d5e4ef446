import json

import pytest

from davir_ray.corpus.detection import detect
from davir_ray.corpus.formats import FORMATS
from davir_ray.errors import RowError
from davir_ray.schema import Status

ASKED = ({"role": "user", "content": "2+2?"},)
FOUR = {"role": "assistant", "content": "4"}
FIVE = {"role": "assistant", "content": "5"}

EXPECTED = {
    "messages": ((*ASKED, FOUR), None),
    "prompt_completion": ((*ASKED, FOUR), None),
    "alpaca": (({"role": "user", "content": "Add.\n2+2"}, FOUR), None),
    "sharegpt": ((*ASKED, FOUR), None),
    "query_response": ((*ASKED, FOUR), None),
    "question_answer": ((*ASKED, FOUR), None),
    "preference": ((*ASKED, FOUR), (*ASKED, FIVE)),
    "preference_implicit": ((*ASKED, FOUR), (*ASKED, FIVE)),
    "preference_messages": ((*ASKED, FOUR), (*ASKED, FIVE)),
    "preference_hh": ((*ASKED, FOUR), (*ASKED, FIVE)),
    "preference_sharegpt": ((*ASKED, FOUR), (*ASKED, FIVE)),
    "preference_alpaca": tuple(({"role": "user", "content": "Add.\n2+2"}, end) for end in (FOUR, FIVE)),
}


def parse(name, **row):
    return FORMATS[name].parse(row)


def failure(name, **row):
    with pytest.raises(RowError) as caught:
        parse(name, **row)
    return caught.value.status, caught.value.reason


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_example_row_of_a_format_parses_to_what_it_says(name):
    example = FORMATS[name].parse(json.loads(FORMATS[name].example))
    assert (example.messages, example.rejected) == EXPECTED[name]


def test_text_and_tokens_are_examples_without_messages():
    text = FORMATS["text"].parse(json.loads(FORMATS["text"].example))
    assert (text.text, text.messages) == ("Two and two are four.", None)
    tokens = FORMATS["tokenized"].parse(json.loads(FORMATS["tokenized"].example))
    assert (tokens.input_ids, tokens.scored) == ((1, 5, 9, 2), (False, False, True, True))


def test_every_format_is_covered_here():
    assert set(EXPECTED) | {"text", "tokenized"} == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_each_example_row_is_detected_as_its_own_format(name):
    row = json.loads(FORMATS[name].example)
    assert detect(list(row), [row], {}).name == name


def test_prompt_and_completion_may_be_message_lists():
    example = parse(
        "prompt_completion",
        prompt=turns(("system", "S"), ("user", "Q")),
        completion=turns(("assistant", "A")),
    )
    assert list(example.messages) == turns(("system", "S"), ("user", "Q"), ("assistant", "A"))


def test_alpaca_puts_system_then_history_then_the_question():
    example = parse("alpaca", instruction="I", input="", output="O", system="S", history=[["q", "a"]])
    assert list(example.messages) == turns(
        ("system", "S"), ("user", "q"), ("assistant", "a"), ("user", "I"), ("assistant", "O")
    )


def test_swift_exchanges_and_a_system_column_are_sharegpt():
    example = parse(
        "sharegpt",
        conversation=[{"human": "a", "assistant": "b"}, {"human": "c", "assistant": "d"}],
        system="S",
    )
    assert list(example.messages) == turns(
        ("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")
    )


def test_a_conversation_keeps_its_own_system_message():
    row = [{"from": "system", "value": "own"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    example = parse("sharegpt", conversations=row, system="other")
    assert [turn["content"] for turn in example.messages] == ["own", "q", "a"]


def test_calls_and_observations_become_tool_calls_and_tool_turns():
    call = '{"name": "add", "arguments": {"a": 2}}'
    roles = (("human", "q"), ("function_call", call), ("observation", "4"), ("gpt", "It is 4."))
    example = parse(
        "sharegpt", conversations=[{"from": r, "value": v} for r, v in roles], tools='[{"name": "add"}]'
    )
    assert [turn["role"] for turn in example.messages] == ["user", "assistant", "tool", "assistant"]
    function = {"name": "add", "arguments": {"a": 2}}
    assert example.messages[1]["tool_calls"] == [{"type": "function", "function": function}]
    assert example.tools == ({"name": "add"},)


def test_extra_keys_pass_and_nulls_that_arrow_invents_do_not():
    turn = {
        "role": "assistant",
        "content": "4",
        "name": "bot",
        "tool_calls": None,
        "meta": {"a": 1, "b": None},
    }
    example = parse("messages", messages=[*ASKED, turn])
    assert example.messages[1] == {"role": "assistant", "content": "4", "name": "bot", "meta": {"a": 1}}


def test_a_turn_that_only_calls_a_tool_is_a_response():
    turn = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    assert parse("messages", messages=[*ASKED, turn]).messages[1]["content"] == ""


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert (
        parse("messages", messages=[*ASKED, {"role": "assistant", "content": parts}]).messages[1]["content"]
        == "ab"
    )


def test_turns_after_the_last_response_are_cut_off():
    example = parse("messages", messages=[*ASKED, FOUR, {"role": "user", "content": "thanks"}])
    assert example.messages == (*ASKED, FOUR)


def test_control_characters_are_text():
    assert parse("question_answer", question="\x00", answer="\x07\x1b").messages[1]["content"] == "\x07\x1b"


def test_a_pair_may_come_as_message_lists():
    example = parse("preference", prompt=list(ASKED), chosen=[FOUR], rejected=[FIVE])
    assert (example.messages, example.rejected) == ((*ASKED, FOUR), (*ASKED, FIVE))


def test_transcripts_of_several_turns_keep_every_turn():
    chosen = "\n\nHuman: a\n\nAssistant: b\n\nc\n\nHuman: d\n\nAssistant: e"
    example = parse("preference_hh", chosen=chosen, rejected=chosen[:-1] + "f")
    assert list(example.messages) == turns(
        ("user", "a"), ("assistant", "b\n\nc"), ("user", "d"), ("assistant", "e")
    )
    assert example.rejected[-1]["content"] == "f"


def test_masks_and_labels_must_all_agree_that_a_token_counts():
    example = parse(
        "tokenized",
        input_ids=[1, 2, 3, 4],
        completion_mask=[0, 1, 1, 1],
        assistant_masks=[1, 1, 0, 1],
        labels=[-100, -100, 3, 4],
    )
    assert example.scored == (False, False, False, True)


def test_padding_is_left_out():
    example = parse("tokenized", input_ids=[0, 7, 8], labels=[-100, -100, 8], attention_mask=[0, 1, 1])
    assert (example.input_ids, example.scored) == ((7, 8), (False, True))


FAILURES = [
    ("messages", {"messages": None}, Status.EMPTY, "`messages` is null"),
    ("messages", {"messages": []}, Status.NO_RESPONSE_TOKENS, "no assistant turn"),
    ("messages", {"messages": list(ASKED)}, Status.NO_RESPONSE_TOKENS, "only user"),
    ("messages", {"messages": turns(("user", "q"), ("assistant", " \n"))}, Status.EMPTY, "response is empty"),
    ("messages", {"messages": "hello"}, Status.BAD_FORMAT, "expected a list of messages, found str 'hello'"),
    ("messages", {"messages": [3]}, Status.BAD_FORMAT, "`messages[0]`"),
    ("messages", {"messages": turns(("narrator", "x"))}, Status.BAD_FORMAT, "'narrator'"),
    ("messages", {"messages": [{"content": "x"}]}, Status.BAD_FORMAT, "expected a role"),
    ("messages", {"messages": turns(("user", 5))}, Status.BAD_FORMAT, "found int 5"),
    ("messages", {"messages": [*ASKED, FOUR], "tools": "{"}, Status.BAD_FORMAT, "`tools`"),
    ("messages", {"messages": [*ASKED, FOUR], "tools": [1]}, Status.BAD_FORMAT, "a list of tool schemas"),
    ("messages", {"messages": turns(("user", "q"), ("assistant", "\ud800"))}, Status.BAD_TEXT, r"'\ud800'"),
    (
        "sharegpt",
        {"conversations": [{"from": "function_call", "value": "no"}]},
        Status.BAD_FORMAT,
        "JSON of a call",
    ),
    ("prompt_completion", {"prompt": "p"}, Status.EMPTY, "`completion`"),
    ("prompt_completion", {"prompt": "p", "completion": ""}, Status.EMPTY, "`completion`"),
    ("prompt_completion", {"completion": "c"}, Status.BAD_FORMAT, "`prompt`: expected"),
    ("prompt_completion", {"prompt": 3, "completion": "c"}, Status.BAD_FORMAT, "found int 3"),
    ("alpaca", {"instruction": "i", "output": ""}, Status.EMPTY, "`output`"),
    (
        "alpaca",
        {"instruction": None, "output": "o"},
        Status.BAD_FORMAT,
        "`instruction`: expected text, found null",
    ),
    ("alpaca", {"instruction": "i", "input": 2, "output": "o"}, Status.BAD_FORMAT, "`input`"),
    ("alpaca", {"instruction": "i", "output": "o", "history": [["q"]]}, Status.BAD_FORMAT, "`history[0]`"),
    ("alpaca", {"instruction": "i", "output": "o", "history": "h"}, Status.BAD_FORMAT, "[question, answer]"),
    ("question_answer", {"question": "\ud83d", "answer": "a"}, Status.BAD_TEXT, "`question`"),
    ("text", {"text": ""}, Status.EMPTY, "`text`"),
    ("text", {"text": " \n"}, Status.EMPTY, "blank"),
    ("text", {"text": ["a"]}, Status.BAD_FORMAT, "expected text, found a list of 1"),
    ("tokenized", {"input_ids": [1, 2]}, Status.BAD_FORMAT, "`labels`"),
    ("tokenized", {"input_ids": [1, "2"], "labels": [1, 2]}, Status.BAD_FORMAT, "whole numbers"),
    ("tokenized", {"input_ids": [1, 2], "labels": [1]}, Status.BAD_FORMAT, "2 labels"),
    ("tokenized", {"input_ids": [1, 2], "labels": [-100, 9]}, Status.BAD_FORMAT, "input_ids[1], which is 2"),
    ("tokenized", {"input_ids": [1, 2], "completion_mask": [0, 2]}, Status.BAD_FORMAT, "0 or 1"),
    (
        "tokenized",
        {"input_ids": [1, 2], "labels": [-100, -100]},
        Status.NO_RESPONSE_TOKENS,
        "no token to score",
    ),
    ("preference", {"prompt": "p", "chosen": "c", "rejected": None}, Status.EMPTY, "`rejected`"),
    ("preference", {"chosen": "c", "rejected": "r"}, Status.BAD_FORMAT, "`prompt`"),
    (
        "preference_implicit",
        {"chosen": [*ASKED, FOUR], "rejected": turns(("user", "x"), ("assistant", "y"))},
        Status.BAD_FORMAT,
        "same prompt",
    ),
    ("preference_hh", {"chosen": "hello", "rejected": "x"}, Status.BAD_FORMAT, "transcript"),
    (
        "preference_hh",
        {"chosen": "\n\nHuman: a\n\nAssistant:", "rejected": "\n\nHuman: a\n\nAssistant: b"},
        Status.EMPTY,
        "`chosen`",
    ),
    (
        "preference_sharegpt",
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "human", "value": "c"},
            "rejected": {},
        },
        Status.BAD_FORMAT,
        "`rejected`",
    ),
]


@pytest.mark.parametrize(("name", "row", "status", "words"), FAILURES)
def test_a_row_that_cannot_be_used_says_why(name, row, status, words):
    found, reason = failure(name, **row)
    assert found == status
    assert words in reason
    assert reason.isascii()
