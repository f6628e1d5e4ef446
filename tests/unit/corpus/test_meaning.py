"""What changes the meaning of a row is obeyed by a format, or the row is refused and the reason names it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davir_ray.coreset.shapes import to_messages
from davir_ray.corpus.formats import FORMATS
from davir_ray.errors import RowError
from davir_ray.schema import Status

ASK = {"role": "user", "content": "Which planet has rings?"}
TOOLS = [{"type": "function", "function": {"name": "sum"}}]
MEANING = {
    "image": {"bytes": "iVBO", "path": None},
    "images": ["a.png"],
    "video": "a.mp4",
    "videos": ["a.mp4"],
    "audio": {"path": "a.wav"},
    "audios": ["a.wav"],
    "weight": 0,
    "weights": [1, 0.5],
    "sample_weight": 2.5,
    "loss_weight": 0.1,
    "loss_scale": 0.5,
    "rejected_response": "Mars",
    "rejected_messages": [ASK, {"role": "assistant", "content": "Mars"}],
    "chosen": "Saturn",
    "rejected": "Mars",
    "system": "Answer like a pirate.",
    "tools": TOOLS,
    "functions": [{"name": "sum"}],
    "history": [["Hello", "Good day"]],
    "chat_template_kwargs": {"enable_thinking": False},
    "kto_tag": False,
    "label": False,
}
CONVERSATION_ONLY = ("chosen", "rejected", "system", "tools", "functions", "history", "chat_template_kwargs")
CONVERSATIONS = [name for name, one in FORMATS.items() if one.is_conversation]
SINGLE = [name for name in CONVERSATIONS if not name.startswith("preference")]


def outcome(name, row):
    """The status of a row, with its example or its reason."""
    try:
        return Status.OK, FORMATS[name].parse(row)
    except RowError as error:
        return error.status, error.reason


def literal(name):
    row = json.loads(FORMATS[name].example)
    return {key: value for key, value in row.items() if key != "input"}


@pytest.mark.parametrize("key", MEANING)
@pytest.mark.parametrize("name", FORMATS)
def test_no_key_that_changes_the_meaning_is_dropped(name, key):
    format, row = FORMATS[name], literal(name)
    status, found = outcome(name, row | {key: MEANING[key]})
    if key in format.needs + format.one_of:
        return  # it is the row itself
    if key == "label" and name not in SINGLE:
        assert status == Status.OK  # another thing's label: no trainer reads it beside pairs, text or tokens
    elif key in CONVERSATION_ONLY and not format.is_conversation:
        assert status == Status.OK  # a text, and tokens, have all of it in them
        assert key not in format.columns
    elif key in ("kto_tag", "label") and name in SINGLE:
        assert (status, f"`{key}` is false" in found) == (Status.UNDESIRABLE, True)
    elif key in format.columns:
        assert status == Status.OK
        assert found.example_id != format.parse(row).example_id
    else:
        assert status == Status.BAD_FORMAT
        assert f"`{key}`" in found
        assert found.isascii()


@pytest.mark.parametrize("nothing", [None, "", " ", [], {}, [None], {"bytes": None, "path": None}])
@pytest.mark.parametrize("name", FORMATS)
def test_a_key_that_says_nothing_changes_nothing(name, nothing):
    format, row = FORMATS[name], literal(name)
    empty = dict.fromkeys((key for key in format.refuses if key not in row), nothing)
    assert format.parse(row | empty).example_id == format.parse(row).example_id


@pytest.mark.parametrize("key", ["weight", "loss_weight", "weights"])
@pytest.mark.parametrize("one", [1, 1.0, True, [1, 1]])
def test_a_row_of_weight_one_is_an_ordinary_row(key, one):
    assert outcome("messages", literal("messages") | {key: one})[0] == Status.OK


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_system_and_what_the_template_gets_are_part_of_the_content(name):
    row = literal(name) | {
        "system": "Answer like a pirate.",
        "tools": TOOLS,
        "chat_template_kwargs": {"enable_thinking": False, "other": None},
    }
    example = FORMATS[name].parse(row)
    for turns in filter(None, (example.messages, example.rejected)):
        assert [turn["role"] for turn in turns].count("system") == 1
        assert turns[0] == {"role": "system", "content": "Answer like a pirate."}
    assert example.tools == tuple(TOOLS)
    assert example.chat_template_kwargs == {"enable_thinking": False}
    ids = {
        FORMATS[name].parse({**row, key: value}).example_id
        for key, value in (("system", "x"), ("tools", None), ("chat_template_kwargs", '{"a": 1}'), ("y", 2))
    }
    assert len(ids) == 4


@pytest.mark.parametrize("name", [name for name in CONVERSATIONS if "history" in FORMATS[name].columns])
def test_history_stands_between_system_and_prompt(name):
    example = FORMATS[name].parse(literal(name) | {"system": "S", "history": [["q", "a"]]})
    assert [turn["content"] for turn in example.messages][:3] == ["S", "q", "a"]


def test_history_follows_a_system_turn_of_the_prompt():
    prompt = [{"role": "system", "content": "S"}, ASK]
    row = {"prompt": prompt, "completion": "Saturn", "history": [["q", "a"]]}
    contents = [turn["content"] for turn in FORMATS["prompt_completion"].parse(row).messages]
    assert contents == ["S", "q", "a", ASK["content"], "Saturn"]


def test_orca_pairs_keep_their_system_message():
    row = {"system": "Answer like a pirate.", "question": "2+2?", "chosen": "4", "rejected": "5"}
    preference = FORMATS["preference"]
    example = preference.parse(preference.select(row, {"prompt": "question"}))
    assert [turn["content"] for turn in example.messages] == ["Answer like a pirate.", "2+2?", "4"]
    assert [turn["content"] for turn in example.rejected] == ["Answer like a pirate.", "2+2?", "5"]
    other = preference.parse(preference.select(row | {"system": "x"}, {"prompt": "question"}))
    assert other.example_id != example.example_id


@pytest.mark.parametrize("wanted", [True, 1, 1.0, None, "true"])
@pytest.mark.parametrize("key", ["label", "kto_tag"])
@pytest.mark.parametrize("name", SINGLE)
def test_a_wanted_response_is_an_ordinary_row(name, key, wanted):
    row = literal(name)
    assert FORMATS[name].parse(row | {key: wanted}).example_id == FORMATS[name].parse(row).example_id


def test_a_kto_row_that_is_not_wanted_is_left_out():
    row = {"prompt": "What drives a nail?", "completion": "A hammer ...", "label": False}
    status, reason = outcome("prompt_completion", row)
    assert (status, reason) == ("undesirable", "column `label` is false: the response is not wanted")
    for label in (0, "false", "undesirable"):
        assert outcome("prompt_completion", row | {"label": label})[0] == Status.UNDESIRABLE
    assert outcome("prompt_completion", row | {"label": "good"})[0] == Status.OK
    assert outcome("prompt_completion", row | {"kto_tag": "maybe", "label": None})[0] == Status.BAD_FORMAT


def test_a_column_that_is_read_under_another_name_is_not_read_under_its_own():
    row = {"prompt": "Pick the label.", "label": False, "image": "A cat."}
    format = FORMATS["prompt_completion"]
    assert format.select(row, {"completion": "image"}) == {
        "prompt": "Pick the label.",
        "completion": "A cat.",
        "label": False,
    }
    assert "label" not in format.select(row, {"completion": "label"})


def chat(*turns):
    return {"messages": [ASK, *({"role": "assistant", "content": "Saturn"} | turn for turn in turns)]}


@pytest.mark.parametrize("key", ["weight", "loss", "train", "training", "loss_weight", "loss_scale"])
@pytest.mark.parametrize(
    ("value", "mark"), [(0, 0), (False, 0), (0.0, 0), (1, None), (True, None), (None, None)]
)
def test_weights_become_one_mark(key, value, mark):
    example = FORMATS["messages"].parse(chat({key: value}, {}))
    assert example.messages[1].get("weight") == mark
    assert key == "weight" or key not in example.messages[1]
    plain = FORMATS["messages"].parse(chat({}, {}))
    assert (example.example_id == plain.example_id) == (mark is None)


@given(
    st.one_of(st.floats(), st.integers(), st.text(), st.lists(st.integers())).filter(
        lambda v: v not in (0, 1, [])
    )
)
def test_other_weights_are_refused(value):
    status, reason = outcome("messages", chat({"weight": value}))
    assert status == Status.BAD_FORMAT
    assert "`messages[1].weight`: expected a weight of 0, 1, true or false" in reason


WEIGHTED = [
    (chat({"weight": 0}), Status.NO_RESPONSE_TOKENS, "every assistant turn has weight 0"),
    (chat({"weight": 0, "loss": True}), Status.BAD_FORMAT, "weight and loss that contradict each other"),
    (
        chat({"train_detail": [{"begin_offset": 0, "end_offset": 3, "train": False}]}),
        Status.BAD_FORMAT,
        "train_detail",
    ),
    (
        {"messages": [ASK | {"training": True}, {"role": "assistant", "content": "S"}]},
        Status.BAD_FORMAT,
        "`messages[0].training`: true on a turn of the user",
    ),
    (chat({"images": ["a.png"]}), Status.BAD_FORMAT, "`messages[1].images`"),
]


@pytest.mark.parametrize(("row", "status", "words"), WEIGHTED)
def test_marks_that_cannot_be_obeyed_are_named(row, status, words):
    found, reason = outcome("messages", row)
    assert (found, words in reason) == (status, True)


def test_a_blank_last_answer_of_weight_zero_leaves_the_row_its_others():
    row = chat({}, {"content": " ", "weight": 0})
    assert [turn["content"] for turn in FORMATS["messages"].parse(row).messages[1:]] == ["Saturn", " "]


def test_weights_of_sharegpt_and_swift_are_obeyed():
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "weight": 0}]
    more = [{"from": "human", "value": "q", "weight": 0}, {"from": "gpt", "value": "b", "weight": 1}]
    example = FORMATS["sharegpt"].parse({"conversations": turns + more})
    assert [turn.get("weight") for turn in example.messages] == [None, 0, None, None]
    swift = [{"human": "q", "assistant": "a", "loss": False}, {"human": "q", "assistant": "b"}]
    again = FORMATS["sharegpt"].parse({"conversation": swift})
    assert [turn.get("weight") for turn in again.messages] == [None, 0, None, None]


IMAGE = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
PARTS = [
    (
        [{"type": "text", "text": "a"}, IMAGE],
        "an image part at messages[0].content[1]; images are not supported",
    ),
    ([{"type": "image"}], "an image part at messages[0].content[0]; images are not supported"),
    (
        [{"type": "input_audio", "input_audio": {}}],
        "an audio part at messages[0].content[0]; audio is not supported",
    ),
    ([{"type": "refusal", "refusal": "no"}], "`messages[0].content[0]`: expected a text part"),
    ([{"type": "text", "text": None}], "expected a text part"),
    (["a"], "expected a text part {type: text, text}, found str 'a'"),
]


@pytest.mark.parametrize(("content", "words"), PARTS)
def test_a_part_that_is_no_text_is_refused_by_its_place(content, words):
    row = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "S"}]}
    status, reason = outcome("messages", row)
    assert (status, words in reason) == (Status.BAD_FORMAT, True), reason


def test_text_parts_stay_accepted_with_the_nulls_that_arrow_adds():
    parts = [{"type": "text", "text": "a", "image": None}, {"text": "b"}]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "S"}]}
    assert FORMATS["messages"].parse(row).messages[0]["content"] == "ab"


CALL = {"name": "weather", "arguments": '{"station": "Ulm"}'}
AS_TOOL_CALLS = [{"type": "function", "function": CALL}]
CALLING = [
    {"role": "assistant", "content": None, "function_call": CALL},
    {"role": "assistant", "content": None, "tool_calls": AS_TOOL_CALLS, "function_call": None},
    {"role": "assistant", "content": None, "tool_calls": json.dumps(AS_TOOL_CALLS)},
    {"from": "function_call", "value": json.dumps(CALL)},
]


@pytest.mark.parametrize("turn", CALLING)
def test_calls_become_tool_calls(turn):
    example = FORMATS["messages"].parse({"messages": [ASK, turn], "functions": [{"name": "weather"}]})
    assert example.messages[1] == {"role": "assistant", "content": "", "tool_calls": AS_TOOL_CALLS}
    assert example.tools == ({"type": "function", "function": {"name": "weather"}},)


@pytest.mark.parametrize(
    "turn",
    [
        {"content": "x", "tool_calls": "["},
        {"content": "x", "tool_calls": [{"id": "1"}]},
        {"content": "x", "function_call": "weather"},
        {"content": "x", "function_call": CALL, "tool_calls": AS_TOOL_CALLS},
    ],
)
def test_calls_of_another_shape_are_refused(turn):
    status, reason = outcome("messages", {"messages": [ASK, {"role": "assistant"} | turn]})
    assert (status, "messages[1]" in reason) == (Status.BAD_FORMAT, True)


ENDED = [ASK, {"role": "assistant", "content": "Mars"}]
FIRST = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


@pytest.mark.parametrize(
    "other",
    [
        {"rejected_response": "Mars"},
        {"rejected_response": [ENDED[1]]},
        {"rejected_messages": FIRST + ENDED},
        {"rejected": FIRST + ENDED, "rejected_response": None},
    ],
)
def test_messages_with_another_ending_are_a_pair(other):
    row = {"messages": [*FIRST, ASK, {"role": "assistant", "content": "Saturn"}], **other}
    example = FORMATS["preference_messages"].parse(row)
    assert list(example.messages) == row["messages"]
    assert list(example.rejected) == FIRST + ENDED


def test_messages_whose_other_ending_has_another_prompt_are_refused():
    other = {"rejected_messages": [{"role": "user", "content": "x"}, ENDED[1]]}
    status, reason = outcome("preference_messages", literal("messages") | other)
    assert (status, "same prompt" in reason) == (Status.BAD_FORMAT, True), reason


def test_messages_without_another_ending_among_pairs_are_a_conversation():
    row = literal("messages")
    assert FORMATS["preference_messages"].parse(row) == FORMATS["messages"].parse(row)


@pytest.mark.parametrize(
    ("packed", "column"),
    [({"position_ids": [0, 1, 0, 1]}, "position_ids"), ({"seq_lengths": [2, 2]}, "seq_lengths")],
)
def test_packed_tokens_are_refused(packed, column):
    status, reason = outcome("tokenized", literal("tokenized") | packed)
    assert (status, f"`{column}`: expected one text a row" in reason) == (Status.BAD_FORMAT, True)
    whole = {"position_ids": [0, 1, 2, 3], "seq_lengths": [4]}
    assert outcome("tokenized", literal("tokenized") | whole)[0] == Status.OK


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_messages_export_of_a_row_is_the_row_again(name):
    row = literal(name) | {
        "system": "Answer like a pirate.",
        "tools": TOOLS,
        "chat_template_kwargs": {"a": 1},
    }
    if name in ("messages", "sharegpt"):
        column = "messages" if name == "messages" else "conversations"
        row[column] = [row[column][0], row[column][1] | {"weight": 0}, *row[column]]
    example = FORMATS[name].parse(row)
    exported = to_messages(example)
    formats = {"messages": "messages", "chosen": "preference_implicit"}
    read_as = (
        "preference_messages" if {"messages", "rejected"} <= set(exported) else formats[next(iter(exported))]
    )
    again = FORMATS[read_as].parse(exported)
    assert again == example
    assert again.example_id == example.example_id
