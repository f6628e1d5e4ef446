from davir_ray.coreset.shapes import to_messages, to_trl
from davir_ray.corpus.example import Example


def turns(*contents):
    return tuple(
        {"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)
    )


CHAT = Example(messages=turns("q", "a", "r", "b"), tools=({"name": "f"},))
PAIR = Example(messages=turns("q", "a", "r", "b"), rejected=turns("q", "a", "r", "c"))
TOKENS = Example(input_ids=(4, 5, 6), scored=(False, True, True))


def test_messages_hold_the_conversation_and_its_tools():
    assert to_messages(CHAT) == {"messages": list(turns("q", "a", "r", "b")), "tools": [{"name": "f"}]}
    assert to_messages(PAIR)["rejected"] == list(turns("q", "a", "r", "c"))


def test_the_last_turn_is_the_completion():
    row = to_trl(CHAT)
    assert row["prompt"] + row["completion"] == list(CHAT.messages)
    assert row["completion"] == [{"role": "assistant", "content": "b"}]
    assert row["tools"] == [{"name": "f"}]


def test_the_prompt_of_a_pair_is_what_both_sides_share():
    row = to_trl(PAIR)
    assert row["prompt"] == list(turns("q", "a", "r"))
    assert (row["chosen"], row["rejected"]) == ([turns("", "b")[1]], [turns("", "c")[1]])


def test_a_pair_may_part_early():
    row = to_trl(Example(messages=turns("q", "a", "r", "b"), rejected=turns("q", "x", "y", "z")))
    assert row["prompt"] == list(turns("q"))
    assert row["prompt"] + row["rejected"] == list(turns("q", "x", "y", "z"))


def test_equal_sides_keep_a_response_each():
    row = to_trl(Example(messages=turns("q", "a"), rejected=turns("q", "a")))
    assert (row["prompt"], row["chosen"], row["rejected"]) == (
        list(turns("q")),
        [turns("", "a")[1]],
        [turns("", "a")[1]],
    )


def test_the_last_turn_that_counts_is_the_completion_and_trl_sees_no_weights():
    bad = {"role": "assistant", "content": "BAD", "weight": 0}
    row = to_trl(Example(messages=(turns("q")[0], bad, *turns("r", "b", "s"), bad)))
    assert row["prompt"] == [turns("q")[0], turns("", "BAD")[1], turns("r")[0]]
    assert row["completion"] == [turns("", "b")[1]]
    assert to_trl(Example(messages=(*turns("q"), bad))) is None


def test_text_and_tokens_stay_what_they_are():
    assert to_trl(Example(text="t")) == to_messages(Example(text="t")) == {"text": "t"}
    assert to_trl(TOKENS) == {"input_ids": [4, 5, 6], "labels": [-100, 5, 6]}
