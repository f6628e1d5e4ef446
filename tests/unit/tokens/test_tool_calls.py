"""The arguments of calls reach a template in the form that it writes."""

import json

import pytest

from davir_ray.corpus.formats import FORMATS
from davir_ray.errors import RowError
from davir_ray.schema import Status
from davir_ray.tokens.tool_calls import CallForm
from tests.unit.tokens.conversations import counted, row, says, user, view

TURN = "{{ '<|im_start|>' + m.role + '\n' + (m.content or '') }}"
FILLED = "{% if m.content is not none %}" + TURN + "{% else %}{{ '<|im_start|>assistant\n' }}%s{% endif %}"
EACH = "{% for c in m.tool_calls or [] %}%s{% endfor %}"
ENDED = "{% for m in messages %}%s{{ '<|im_end|>\n' }}{% endfor %}"
ENDED += "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def template(written: str) -> str:
    return ENDED.replace("%s", TURN + EACH.replace("%s", written))


TEMPLATES = {
    "tojson": (template("{{ c.function.arguments | tojson }}"), CallForm("object")),
    "walks": (
        template("{% for k, v in c.function.arguments.items() %}{{ k + '=' + v + ';' }}{% endfor %}"),
        CallForm("object"),
    ),
    "whole": (template("{{ c.function | tojson }}"), CallForm("object")),
    "concatenates": (template("{{ '(' + c.function.arguments + ')' }}"), CallForm("text")),
    "prints": (template("{{ c.function.arguments }}"), CallForm("text")),
    "both": (
        template("{% set a = c.function.arguments %}{{ a if a is string else a | tojson }}"),
        CallForm("either"),
    ),
    "both, but not alike": (
        template(
            "{% set a = c.function.arguments %}{% if a is string %}{{ a }}{% else %}"
            "{% for k in a %}{{ k + ':' + a[k] }}{% endfor %}{% endif %}"
        ),
        CallForm("object"),
    ),
    "beside null": (
        ENDED.replace("%s", FILLED.replace("%s", EACH.replace("%s", "{{ '' + c.function.arguments }}"))),
        CallForm("text", null_content=True),
    ),
    "none": (ENDED.replace("%s", TURN), CallForm()),
}
WRITTEN = {
    "tojson": '{"station": "Ulm"}',
    "walks": "station=Ulm;",
    "whole": '{"name": "weather", "arguments": {"station": "Ulm"}}',
    "concatenates": '({"station": "Ulm"})',
    "prints": '{"station": "Ulm"}',
    "both": '{"station": "Ulm"}',
    "both, but not alike": "station:Ulm",
    "beside null": '{"station": "Ulm"}',
}
ARGUMENTS = [{"station": "Ulm"}, '{"station": "Ulm"}']


@pytest.fixture
def wearing(load, tmp_path):
    def load_with(name):
        path = tmp_path / "a.jinja"
        path.write_text(TEMPLATES[name][0])
        return load("marked", template=str(path))

    return load_with


def calling(arguments) -> dict:
    return {"type": "function", "function": {"name": "weather", "arguments": arguments}}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_tells_by_itself_how_it_takes_calls(wearing, name):
    assert wearing(name).call_form() == TEMPLATES[name][1]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=["object", "text"])
@pytest.mark.parametrize("name", WRITTEN)
def test_both_forms_of_arguments_become_the_same_tokens(wearing, name, arguments):
    tokenizer = wearing(name)
    made = view(tokenizer, row(user("Is it warm?"), says("", tool_calls=[calling(arguments)])))
    assert counted(tokenizer, made) == WRITTEN[name] + "<|im_end|>"


@pytest.mark.parametrize("name", ["tojson", "concatenates"])
def test_every_way_to_write_a_call_counts_the_same_tokens(wearing, name):
    text = json.dumps(ARGUMENTS[0])
    turns = [
        says(None, tool_calls=[calling(text)]),
        says(None, tool_calls=[calling(ARGUMENTS[0])]),
        says(None, function_call=calling(text)["function"]),
        {"from": "function_call", "value": json.dumps(calling(text)["function"])},
        {"from": "function_call", "value": json.dumps(calling(ARGUMENTS[0])["function"])},
    ]
    tokenizer = wearing(name)
    examples = [FORMATS["messages"].parse({"messages": [user("Warm?"), turn]}) for turn in turns]
    made = {tuple(view(tokenizer, one).ids.tolist()) for one in examples}
    assert len(made) == 1
    assert "\\" not in tokenizer.decode(made.pop())


def test_the_text_of_arguments_is_not_quoted_once_more_by_a_known_family(load):
    tokenizer = load("qwen3")
    as_object, as_text = (
        view(tokenizer, row(user("Warm?"), says("", tool_calls=[calling(one)]))) for one in ARGUMENTS
    )
    assert as_text.ids.tolist() == as_object.ids.tolist()
    assert as_text.scored.tolist() == as_object.scored.tolist()


@pytest.mark.parametrize("broken", ["{", "[1]", '"Ulm"'])
def test_text_that_is_no_object_is_refused_where_an_object_is_wanted(wearing, broken):
    example = row(user("Warm?"), says("", tool_calls=[calling(broken)]))
    with pytest.raises(
        RowError, match=r"`messages\[1\].tool_calls\[0\].function.arguments`: expected the JSON"
    ) as it:
        view(wearing("tojson"), example)
    assert it.value.status == Status.BAD_FORMAT
    assert counted(wearing("both"), view(wearing("both"), example)) == broken + "<|im_end|>"


def test_empty_arguments_are_no_arguments(wearing):
    tokenizer = wearing("tojson")
    made = view(tokenizer, row(user("Warm?"), says("", tool_calls=[calling("")])))
    assert counted(tokenizer, made) == "{}<|im_end|>"


@pytest.mark.parametrize("content", ["", "I look it up."])
def test_a_template_that_leaves_calls_out_refuses_them(wearing, content):
    with pytest.raises(RowError, match="message 1: it leaves the tool calls out"):
        view(wearing("none"), row(user("Warm?"), says(content, tool_calls=[calling("{}")])))


@pytest.mark.parametrize("template", ["alpaca", "plain"])
def test_templates_without_a_place_for_calls_refuse_them(load, template):
    example = row(user("Warm?"), says("I look.", tool_calls=[calling("{}")]), user("And?"), says("Yes"))
    with pytest.raises(RowError, match=f"template {template} has no place for the tool calls of message 1"):
        view(load("base", template=template), example)
