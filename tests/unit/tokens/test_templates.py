import pytest

from davir_ray.corpus.example import Example
from davir_ray.errors import RowError
from davir_ray.schema import Status, View
from tests.unit.tokens.conversations import counted, row, runs, says, user, view

FIRST = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
)


def test_alpaca_is_rendered_as_in_llama_factory(load):
    tokenizer = load("base", template="alpaca")
    made = view(tokenizer, row(user("Add."), says("Four"), user("More."), says("Five")))
    assert tokenizer.decode(made.ids) == (
        f"<s>{FIRST}### Instruction:\nAdd.\n\n### Response:\nFour</s>\n\n"
        "### Instruction:\nMore.\n\n### Response:\nFive</s>"
    )
    assert runs(tokenizer, made) == ["Four</s>", "Five</s>"]


def test_alpaca_takes_the_row_s_own_system_message(load):
    tokenizer = load("gpt2", template="alpaca")
    made = view(tokenizer, row({"role": "system", "content": "Be brief."}, user("Add."), says("Four")))
    text = "Be brief.\n\n### Instruction:\nAdd.\n\n### Response:\nFour<|endoftext|>"
    assert tokenizer.decode(made.ids) == text


def test_alpaca_has_no_place_for_a_tool(load):
    with pytest.raises(RowError, match="no place for message 1, role 'tool'") as caught:
        view(load("base", template="alpaca"), row(user("a"), {"role": "tool", "content": "b"}, says("c")))
    assert caught.value.status == Status.TEMPLATE_ERROR


def test_plain_joins_the_contents(load):
    tokenizer = load("base", template="plain")
    made = view(tokenizer, row(user("What?"), says("Four"), user("And?"), says("Five")))
    assert tokenizer.decode(made.ids) == "<s>What?\nFour</s>And?\nFive</s>"
    assert runs(tokenizer, made) == ["Four</s>", "Five</s>"]


def test_plain_keeps_the_white_space_of_a_prompt_and_its_completion(load):
    tokenizer = load("gpt2", template="plain")
    for prompt, completion in (("What?", " Four"), ("What? ", "Four")):
        made = view(tokenizer, row(user(prompt), says(completion)))
        assert tokenizer.decode(made.ids) == "What? Four<|endoftext|>"


def test_a_token_that_merges_the_prompt_s_space_with_the_answer_counts(load):
    tokenizer = load("gpt2", template="plain")
    made = view(tokenizer, row(user("What? "), says("Yes")))
    assert "\u0120Yes" in tokenizer.vocabulary
    assert counted(tokenizer, made) == " Yes<|endoftext|>"


@pytest.mark.parametrize(("name", "template"), [("base", "plain"), ("gpt2", "plain"), ("base", "alpaca")])
def test_the_response_alone_scores_the_same_ids(load, name, template):
    tokenizer = load(name, template=template)
    example = row(user("Hello"), says("Yes"))
    made, alone = (view(tokenizer, example, which) for which in (View.RESPONSE, View.RESPONSE_ALONE))
    assert alone.ids[alone.scored].tolist() == made.ids[made.scored].tolist()
    header = {"plain": "", "alpaca": "### Response:\n"}[template]
    lead = {"base": "<s>", "gpt2": "<|endoftext|>"}[name]
    assert tokenizer.decode(alone.ids) == f"{lead}{header}Yes" + {"base": "</s>"}.get(name, "<|endoftext|>")


def test_a_text_counts_whole_but_for_its_first_token(load):
    tokenizer = load("base", template="plain")
    made = view(tokenizer, Example(text="Hello there"))
    assert tokenizer.decode(made.ids) == "<s>Hello there</s>"
    assert counted(tokenizer, made) == "Hello there</s>"
    without = load("gpt2", template="plain")
    made = view(without, Example(text="Hello there"))
    assert without.decode(made.ids) == "Hello there<|endoftext|>"
    assert made.scored.tolist() == [False] + [True] * (len(made.ids) - 1)


def test_a_text_that_brings_bos_and_eos_gets_no_second_ones(load):
    tokenizer = load("base", template="plain")
    assert tokenizer.decode(view(tokenizer, Example(text="<s>Hello</s>")).ids) == "<s>Hello</s>"


def test_a_text_is_the_same_in_both_views(load):
    for name in ("base", "gpt2"):
        tokenizer = load(name, template="plain")
        made, alone = (
            view(tokenizer, Example(text="Hello"), which) for which in (View.RESPONSE, "response_alone")
        )
        assert (made.ids.tolist(), made.scored.tolist()) == (alone.ids.tolist(), alone.scored.tolist())
