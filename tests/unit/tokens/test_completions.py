"""What TRL's DPO trains on of an exported pair: TRL's own functions on the exported row, and ours on the example."""

from dataclasses import replace

import pytest
from trl.data_utils import _tokenize, common_prefix_length

from davir_ray.config import TokensConfig
from davir_ray.coreset.shapes import to_trl
from davir_ray.corpus.example import Example
from davir_ray.schema import View
from davir_ray.tokens.completions import completions
from davir_ray.tokens.views import sequences
from tests.unit.tokens.conversations import counted, says, user
from tests.unit.tokens.families import FAMILIES

VIEWS = [View.RESPONSE, View.REJECTED, View.COMPLETION, View.REJECTED_COMPLETION]
SINGLE = Example(messages=(user("2+2?"), says("4")), rejected=(user("2+2?"), says("5, no?")))
SHARED = (user("Hi."), says("Hello."), user("2+3?"))
MULTI = Example(messages=(*SHARED, says("5")), rejected=(*SHARED, says("6")))
PARTED = Example(
    messages=(user("Hi."), says("Hello."), user("City?"), says("Ulm")),
    rejected=(user("Hi."), says("What?"), user("City?"), says("Bonn")),
)
VARIED = replace(SINGLE, chat_template_kwargs={"enable_thinking": False})
CALL = {"type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}}
CALLED = Example(
    messages=(user("2+2?"), says("", tool_calls=[CALL])), rejected=(user("2+2?"), says("5, no?"))
)


def by_trl(tokenizer, example: Example) -> dict[View, tuple[list[int], int]]:
    """Tokenise as TRL 1.16's DPOTrainer does: ids of both sides, and where the completion begins."""
    row = to_trl(example, tokenizer.call_form(example.tools))
    given = {"tools": row.get("tools"), **row.get("chat_template_kwargs", {})}
    prompt = _tokenize(tokenizer.hf, row["prompt"], add_generation_prompt=True, **given)["input_ids"]
    sides = [
        _tokenize(tokenizer.hf, row["prompt"] + row[side], **given)["input_ids"]
        for side in ("chosen", "rejected")
    ]
    first = min(common_prefix_length(prompt, side) for side in sides)
    return {view: (ids, first) for view, ids in zip(VIEWS[2:], sides, strict=True)}


@pytest.mark.parametrize(
    "example", [SINGLE, MULTI, PARTED, VARIED], ids=["single", "multi", "parted", "varied"]
)
@pytest.mark.parametrize("family", [name for name, one in FAMILIES.items() if one.template])
def test_completions_are_what_trl_trains_on(load, family, example):
    tokenizer = load(family)
    made = sequences(example, tokenizer, TokensConfig(), VIEWS)
    expected = by_trl(tokenizer, example)
    assert [one.view for one in made] == VIEWS
    for one in made[2:]:
        ids, first = expected[one.view]
        assert one.ids.tolist() == ids
        assert one.scored.tolist() == [False] * first + [True] * (len(ids) - first)


def test_completions_have_the_variables_of_their_row_and_calls_in_the_form_of_the_template(load):
    tokenizer = load("qwen3")
    texts = []
    for example in (SINGLE, VARIED, CALLED):
        made = completions(tokenizer, example, 4096)
        assert {view: (ids.tolist(), first) for view, (ids, first) in made.items()} == by_trl(
            tokenizer, example
        )
        ids, first = made[View.COMPLETION]
        texts.append(tokenizer.decode(ids[first:]))
    assert texts[0] != texts[1]
    assert '"arguments": {"a": "b"}' in texts[2]


def test_earlier_answers_that_measuring_counts_are_no_part_of_the_completion(load):
    made = {one.view: one for one in sequences(MULTI, load("smollm2"), TokensConfig(), VIEWS)}
    assert counted(load("smollm2"), made[View.RESPONSE]) == "Hello.<|im_end|>5<|im_end|>"
    assert counted(load("smollm2"), made[View.COMPLETION]) == "5<|im_end|>\n"


def test_a_pair_that_is_cut_before_its_completions_keeps_its_other_views(load):
    tokenizer = load("smollm2")
    asked = [View.RESPONSE, *VIEWS[2:]]
    whole = sequences(MULTI, tokenizer, TokensConfig(), asked)
    first = int(whole[1].scored.argmax())
    (left,) = sequences(MULTI, tokenizer, TokensConfig(max_length=first), asked)
    assert (left.view, left.truncated) == (View.RESPONSE, True)
    made = sequences(MULTI, tokenizer, TokensConfig(max_length=len(whole[1].ids) - 1), asked)
    assert [one.truncated for one in made] == [False] * 3, (
        "a newline behind the last turn is no response token"
    )
