"""A turn of weight 0 stays in the conversation and leaves the loss mask."""

import pytest

from davir_ray.config import TokensConfig
from davir_ray.corpus.example import Example
from davir_ray.errors import RowError
from davir_ray.schema import Status, View
from davir_ray.tokens.not_read import not_read_keys
from davir_ray.tokens.views import sequences
from tests.unit.tokens.conversations import counted, row, runs, says, user, view
from tests.unit.tokens.families import FAMILIES

CHAT = [name for name, family in FAMILIES.items() if family.template]
BARE = [("base", "alpaca"), ("base", "plain")]
DRESSED = [(name, "chat") for name in CHAT] + BARE


def lead(name):
    return " " if name == "mistral" else ""


def talk(first=None, last=None):
    marks = [{} if weight is None else {"weight": weight} for weight in (first, last)]
    return user("Hello"), says("Yes", **marks[0]), user("What?"), says("No", **marks[1])


@pytest.mark.parametrize(("name", "template"), DRESSED)
def test_weight_zero_changes_the_mask_and_not_the_ids(load, name, template):
    tokenizer = load(name, template=template)
    end = FAMILIES[name].end
    whole = view(tokenizer, row(*talk()), template=template)
    first_out = view(tokenizer, row(*talk(first=0)), template=template)
    assert first_out.ids.tolist() == whole.ids.tolist()
    assert runs(tokenizer, first_out) == [f"{lead(name)}No{end}"]
    last_out = view(tokenizer, row(*talk(last=0)), template=template)
    assert last_out.ids.tolist() == whole.ids[: len(last_out.ids)].tolist()
    assert runs(tokenizer, last_out) == [f"{lead(name)}Yes{end}"]


@pytest.mark.parametrize("score_on", ["last_assistant", "completion"])
@pytest.mark.parametrize(("name", "template"), DRESSED)
def test_only_what_the_mode_counts_and_the_weights_leave_is_scored(load, name, template, score_on):
    tokenizer = load(name, template=template)
    made = view(tokenizer, row(*talk(first=0)), template=template, score_on=score_on)
    assert counted(tokenizer, made) == f"{lead(name)}No{FAMILIES[name].end}"
    with pytest.raises(RowError, match=f"score_on {score_on} counts has weight 0") as caught:
        view(tokenizer, row(*talk(last=0)), template=template, score_on=score_on)
    assert caught.value.status == Status.NO_RESPONSE_TOKENS


@pytest.mark.parametrize(("name", "template"), DRESSED)
def test_all_leaves_out_the_turn_and_nothing_else(load, name, template):
    tokenizer = load(name, template=template)
    whole = view(tokenizer, row(*talk()), template=template, score_on="all")
    inside = view(tokenizer, row(*talk(last=0)), template=template).scored  # the first answer alone
    made = view(tokenizer, row(*talk(first=0)), template=template, score_on="all")
    assert made.ids.tolist() == whole.ids.tolist()
    expected = [at > 0 and not (at < len(inside) and inside[at]) for at in range(len(made.ids))]
    assert made.scored.tolist() == expected


@pytest.mark.parametrize("score_on", ["all_assistant", "all"])
@pytest.mark.parametrize(("name", "template"), DRESSED)
def test_the_response_alone_is_the_last_answer_that_counts(load, name, template, score_on):
    tokenizer = load(name, template=template)
    for first, last, words in ((0, None, "No"), (None, 0, "Yes")):
        config = TokensConfig(template=template, score_on=score_on)
        views = [View.RESPONSE, View.RESPONSE_ALONE]
        _, alone = sequences(row(*talk(first, last)), tokenizer, config, views)
        assert counted(tokenizer, alone).removeprefix(" ") == f"{words}{FAMILIES[name].end}"


@pytest.mark.parametrize("name", ["smollm2", "marked"])
def test_both_sides_of_a_pair_obey_weights(load, name):
    tokenizer, end = load(name), FAMILIES[name].end
    prompt = (user("Hello"), says("Yes", weight=0), user("What?"))
    example = Example(messages=(*prompt, says("four")), rejected=(*prompt, says("five")))
    sides = {View.RESPONSE: "four", View.REJECTED: "five"}
    for which, words in sides.items():
        assert runs(tokenizer, view(tokenizer, example, which)) == [words + end]


def test_marks_of_ours_never_reach_the_template(load, tmp_path):
    path = tmp_path / "a.jinja"
    path.write_text(
        "{% for m in messages %}{{ m.keys() | list | join(',') }}{% endfor %}" + FAMILIES["marked"].template
    )
    tokenizer = load("marked", template=str(path))
    made = view(tokenizer, row(*talk(first=0)))
    assert "weight" not in tokenizer.decode(made.ids)
    assert "role,content" in tokenizer.decode(made.ids)


def test_what_a_row_gives_to_the_template_stands_before_the_recipe(load):
    tokenizer = load("qwen3", chat_template_kwargs={"enable_thinking": True, "note": "x"})
    example = row(user("Hello"), says("Yes"), chat_template_kwargs={"enable_thinking": False})
    prompt = tokenizer.chat(example.messages[:1], prompt=True, variables=example.chat_template_kwargs)[0]
    assert prompt.endswith("<think>\n\n</think>\n\n")
    assert not tokenizer.chat(example.messages[:1], prompt=True)[0].endswith("</think>\n\n")
    assert counted(tokenizer, view(tokenizer, example)) == "Yes<|im_end|>"


def test_what_a_row_gives_to_the_template_reaches_its_tokens(load, tmp_path):
    path = tmp_path / "a.jinja"
    path.write_text("{{ mood or '' }}" + FAMILIES["marked"].template)
    tokenizer = load("marked", template=str(path))
    example = row(user("Hello"), says("Yes"), chat_template_kwargs={"mood": "sunny"})
    made = view(tokenizer, example)
    assert tokenizer.decode(made.ids).startswith("sunny<|im_start|>user")
    assert counted(tokenizer, made) == "Yes<|im_end|>"


def test_a_row_may_not_set_what_is_ours(load):
    example = row(user("Hello"), says("Yes"), chat_template_kwargs={"add_generation_prompt": True})
    with pytest.raises(
        RowError, match="`chat_template_kwargs`: add_generation_prompt is set by davir_ray"
    ) as it:
        view(load("qwen3"), example)
    assert it.value.status == Status.BAD_FORMAT


def test_keys_that_the_template_does_not_look_at_are_named(load, tmp_path):
    example = row(
        user("Hello"),
        says("Yes", name="bob", weight=0),
        says("No", reasoning_content="hm"),
        tools=({"name": "sum"},),
        chat_template_kwargs={"enable_thinking": False},
    )
    everything = {
        "turns[].name", "turns[].reasoning_content", "tools", "chat_template_kwargs.enable_thinking"
    }  # fmt: skip
    assert not_read_keys(load("smollm2"), example) == everything
    assert not_read_keys(load("qwen3"), example) == everything - {"chat_template_kwargs.enable_thinking"}
    assert not_read_keys(load("base", template="plain"), example) == everything
    path = tmp_path / "whole.jinja"
    path.write_text("{% for m in messages %}{{ m | tojson + '\n' }}{% endfor %}")
    assert "turns[].name" not in not_read_keys(load("marked", template=str(path)), example)
