import pytest

from davir_ray.errors import RowError
from davir_ray.schema import Status, View
from tests.unit.tokens.conversations import counted, row, runs, says, user, view
from tests.unit.tokens.families import FAMILIES

CHAT = [name for name, family in FAMILIES.items() if family.template]
ANSWERS = {
    "plain": "It is four.",
    "accents": "d\u00e9j\u00e0 vu, na\u00efve",
    "combining": "e\u0301 a\u0308\u0304 o\u0302",
    "leading combining": "\u0301x",
    "emoji": "ok \U0001f469\u200d\U0001f469\u200d\U0001f467\U0001f3fd \U0001f1eb\U0001f1f7",
    "emoji first": "\U0001f600",
    "control": "a\x00b\x07c\x1b[31md\x7f",
    "bidi": "a\u202eb\u2066c",
    "lines": "one\n\n\ntwo\r\n\ttabbed",
    "digits": "0",
    "the prompt again": "What is two and two?",
    "roles": "user\nassistant\nsystem",
    "a marker": "an <|im_end|>\n<|im_start|>user\nfake </s> <end_of_turn> <|eot_id|> turn",
    "a marker last": "done <|im_end|>",
    "the mark": "davirMARKdavir and davirMARKdavirx",
    "jinja": "{{ messages }} {% generation %}",
}


def space(name: str) -> str:
    """Mistral writes a space before an answer; it is part of the answer's first token where they merge."""
    return " " if name == "mistral" else ""


@pytest.mark.parametrize("score_on", ["all_assistant", "last_assistant", "completion"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("name", CHAT)
def test_what_counts_decodes_to_the_answer_and_its_end(load, name, answer, score_on):
    tokenizer = load(name)
    example = row(user("What is two and two?"), says(answer))
    made = view(tokenizer, example, score_on=score_on)
    alone = view(tokenizer, example, View.RESPONSE_ALONE, score_on=score_on)
    assert counted(tokenizer, made).removeprefix(space(name)) == answer + FAMILIES[name].end
    assert alone.ids[alone.scored].tolist() == made.ids[made.scored].tolist()
    assert not alone.scored[0]
    assert len(alone.ids) < len(made.ids)


@pytest.mark.parametrize("name", CHAT)
def test_every_turn_of_a_conversation_counts_or_the_last_alone(load, name):
    tokenizer, end = load(name), FAMILIES[name].end
    example = row(user("Hello"), says("Yes"), user("Hello"), says("No"))
    lead = space(name)
    assert runs(tokenizer, view(tokenizer, example)) == [f"{lead}Yes{end}", f"{lead}No{end}"]
    for score_on in ("last_assistant", "completion"):
        assert runs(tokenizer, view(tokenizer, example, score_on=score_on)) == [f"{lead}No{end}"]


@pytest.mark.parametrize("name", CHAT)
def test_ids_are_those_of_the_template_up_to_the_last_that_counts(load, name):
    tokenizer = load(name)
    messages = [user("Hello there"), says("Yes"), user("What?"), says("No")]
    ids = view(tokenizer, row(*messages)).ids
    expected = tokenizer.hf.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert ids.tolist() == expected[: len(ids)]
    assert FAMILIES[name].end not in tokenizer.decode(expected[len(ids) :])


@pytest.mark.parametrize("name", CHAT)
def test_all_counts_every_token_but_the_first(load, name):
    made = view(load(name), row(user("Hello"), says("Yes")), score_on="all")
    assert not made.scored[0]
    assert made.scored[1:].all()


def test_the_newline_after_the_end_token_does_not_count(load):
    tokenizer = load("smollm2")
    made = view(tokenizer, row(user("Hello"), says("Yes"), user("Hello"), says("No")))
    first_end = made.scored.nonzero()[0][1]
    assert tokenizer.decode(made.ids[first_end : first_end + 2]) == "<|im_end|>\n"
    assert made.scored[first_end : first_end + 2].tolist() == [True, False]


def test_exact_ids_of_a_tiny_conversation(load):
    tokenizer = load("smollm2")
    made = view(tokenizer, row({"role": "system", "content": "x"}, user("y"), says("z!")))
    start, end, line = (tokenizer.vocabulary[token] for token in ("<|im_start|>", "<|im_end|>", "\u010a"))
    x, y, z, mark = (tokenizer.vocabulary[token] for token in "xyz!")
    system, asker, answerer = (tokenizer.encode(role)[0].tolist() for role in ("system", "user", "assistant"))
    prompt = [start, *system, line, x, end, line, start, *asker, line, y, end, line, start, *answerer, line]
    assert made.ids.tolist() == [*prompt, z, mark, end]
    assert made.ids[made.scored].tolist() == [z, mark, end]
    assert made.scored.nonzero()[0].tolist() == [len(prompt), len(prompt) + 1, len(prompt) + 2]


def test_a_template_that_trims_scores_the_trimmed_answer(load):
    for name, end in (("llama3", "<|eot_id|>"), ("gemma", "<end_of_turn>")):
        tokenizer = load(name)
        assert counted(tokenizer, view(tokenizer, row(user("Hello"), says("\n  Yes \n")))) == "Yes" + end


def test_reasoning_that_the_template_drops_from_earlier_turns_is_not_looked_for(load):
    tokenizer = load("qwen3")
    thought = "<think>\nhm\n</think>\n\n"
    example = row(user("Hello"), says(thought + "Yes"), user("Hello"), says(thought + "No"))
    assert runs(tokenizer, view(tokenizer, example)) == ["Yes<|im_end|>", thought + "No<|im_end|>"]


@pytest.mark.parametrize("kwargs", [{}, {"enable_thinking": False}])
def test_an_empty_reasoning_block_that_the_template_adds_does_not_count(load, kwargs):
    tokenizer = load("qwen3", chat_template_kwargs=kwargs)
    made = view(tokenizer, row(user("Hello"), says("Yes")))
    assert "<think>" in tokenizer.decode(made.ids)
    assert counted(tokenizer, made) == "Yes<|im_end|>"


def test_tool_calls_count_and_tool_replies_do_not(load):
    tokenizer = load("qwen3")
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
    reply = {"role": "tool", "content": "secret 4"}
    example = row(user("two and two?"), says(None, tool_calls=[call]), reply, says("It is four."))
    calls, answer = runs(tokenizer, view(tokenizer, example))
    assert calls == '\n<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call><|im_end|>'
    assert answer == "It is four.<|im_end|>"
    only = view(tokenizer, example, score_on="last_assistant")
    assert runs(tokenizer, only) == ["It is four.<|im_end|>"]
    assert len(runs(tokenizer, view(tokenizer, example, score_on="completion"))) == 2


def test_a_template_that_leaves_tool_calls_out_is_a_template_error(load):
    example = row(user("Hello"), says("", tool_calls=[{"function": {"name": "f"}}]), user("a"), says("Yes"))
    with pytest.raises(RowError, match="message 1: it leaves the tool calls out") as caught:
        view(load("smollm2"), example)
    assert caught.value.status == Status.TEMPLATE_ERROR


def test_a_template_that_rewrites_an_answer_is_a_template_error(load, tmp_path):
    path = tmp_path / "odd.jinja"
    path.write_text(
        "{% for m in messages %}{{ '<|im_start|>' + m['content'] | upper + '<|im_end|>' }}{% endfor %}"
    )
    with pytest.raises(RowError, match="hides the answer in message 1") as caught:
        view(load("base", template=_harmless_first(path)), row(user("Hello"), says("yes")))
    assert caught.value.status == Status.TEMPLATE_ERROR


def _harmless_first(path):
    """Upper-case only what is not the probe that loading renders."""
    text = path.read_text().replace("| upper", "| replace('yes', 'no')")
    path.write_text(text)
    return str(path)


def test_what_the_template_refuses_is_named(load):
    system = {"role": "system", "content": "x"}
    with pytest.raises(RowError, match="System role not supported"):
        view(load("gemma"), row(system, user("Hello"), says("Yes")))
    with pytest.raises(RowError, match="must alternate"):
        view(load("gemma"), row(user("Hello"), user("Hello"), says("Yes")))


@pytest.mark.parametrize("name", CHAT)
def test_there_is_never_a_second_bos(load, name):
    tokenizer = load(name)
    bos = tokenizer.hf.bos_token_id
    for which in (View.RESPONSE, View.RESPONSE_ALONE):
        ids = view(tokenizer, row(user("Hello"), says("Yes")), which).ids.tolist()
        assert bos is None or ids[:2] != [bos, bos]


def test_the_response_alone_keeps_bos_and_the_header(load):
    shown = {}
    for name in CHAT:
        tokenizer = load(name)
        made = view(tokenizer, row(user("Hello"), says("Yes")), View.RESPONSE_ALONE)
        shown[name] = tokenizer.decode(made.ids[~made.scored])
    assert shown == {
        "smollm2": "<|im_start|>assistant\n",
        "llama3": "<|begin_of_text|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "qwen3": "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "gemma": "<bos><start_of_turn>model\n",
        "mistral": "<s>",
        "marked": "<|im_start|>assistant\n",
        "phi3": "<|assistant|>\n",
    }


def test_a_very_long_answer_is_found(load):
    tokenizer = load("llama3")
    answer = "The quick brown fox. " * 20_000 + "end"
    made = view(tokenizer, row(user("Hello"), says(answer)), max_length=10**7)
    assert counted(tokenizer, made) == answer + "<|eot_id|>"


def test_tools_reach_the_template(load, tmp_path):
    path = tmp_path / "tools.jinja"
    start = "{% for tool in tools or [] %}{{ tool.function.name }};{% endfor %}"
    path.write_text(start + FAMILIES["marked"].template)
    tokenizer = load("marked", template=str(path))
    tools = ({"type": "function", "function": {"name": "adder"}},)
    made = view(tokenizer, row(user("Hello"), says("Yes"), tools=tools))
    assert tokenizer.decode(made.ids).startswith("adder;<|im_start|>user")
    assert counted(tokenizer, made) == "Yes<|im_end|>"


def test_the_date_in_a_template_stands_still(load, tmp_path):
    path = tmp_path / "date.jinja"
    path.write_text("{{ strftime_now('%Y-%m-%d') }}\n" + FAMILIES["marked"].template)
    tokenizer = load("marked", template=str(path))
    assert tokenizer.chat([user("Hello")])[0].startswith("2024-07-26\n")
