import re
from dataclasses import replace

import pytest

from davir_ray.config import TokensConfig
from davir_ray.corpus.example import Example
from davir_ray.errors import TokenizerMismatch
from davir_ray.tokens.agreement import check_agreement
from davir_ray.tokens.tokenizer import load_tokenizer
from tests.unit.tokens.conversations import row, says, user
from tests.unit.tokens.families import FAMILIES, MARKED, save

ROWS = [row(user("Hello"), says("Yes"))]


def changed(tmp_path, config=None, base="marked", **changes):
    """The same family with something changed, saved and loaded."""
    settings = {key: changes.pop(key) for key in ("vocabulary", "nfc") if key in changes}
    folder = save(replace(FAMILIES[base], **changes), tmp_path / "changed", **settings)
    return load_tokenizer(folder, config or TokensConfig())


def mismatch(base, reference, examples=ROWS, config=None) -> str:
    with pytest.raises(TokenizerMismatch) as caught:
        check_agreement(base, reference, examples, config or TokensConfig())
    assert base.path in str(caught.value)
    return str(caught.value)


def test_equal_tokenizers_agree(load, tmp_path):
    check_agreement(load("marked"), changed(tmp_path), ROWS, TokensConfig())


def test_an_added_padding_token_is_no_difference(load, tmp_path):
    reference = changed(tmp_path, markers=(*FAMILIES["marked"].markers, "<pad>"))
    assert "<pad>" in reference.vocabulary
    check_agreement(load("marked"), reference, ROWS, TokensConfig())


def test_a_token_with_another_id_is_shown(load, tmp_path):
    text = mismatch(load("marked"), changed(tmp_path, markers=("<x>", "<|im_start|>", "<|im_end|>")), ())
    assert re.search(r"token '<\|im_start\|>' is \d+ in base and \d+ in reference; 1 tokens differ", text)


def test_another_vocabulary_is_shown(load, tmp_path):
    text = mismatch(load("marked"), changed(tmp_path, vocabulary=300))
    assert re.search(r"token '<\|im_end\|>' is \d+ in base", text)


def test_another_normalisation_is_shown(load, tmp_path):
    assert "the normalizers differ" in mismatch(load("marked"), changed(tmp_path, nfc=True))


def test_the_first_different_token_of_a_row_is_shown_with_its_neighbours(load, tmp_path):
    template = MARKED.replace("message['content'] }}{% endg", "' ' + message['content'] }}{% endg")
    text = mismatch(load("marked"), changed(tmp_path, template=template))
    assert "first difference at token" in text
    assert re.search(r"base: .*='Yes'", text)
    assert re.search(r"reference: .*=' Yes'", text)
    assert "the chat templates differ from character" in text


def test_marks_that_differ_are_shown_though_ids_agree(load, tmp_path):
    turn = "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    template = (
        "{% for message in messages %}{% if message['role'] == 'assistant' %}"
        f"{{% generation %}}{turn}{{% endgeneration %}}{{% else %}}{turn}{{% endif %}}"
        "{{ '<|im_end|>\n' }}{% endfor %}"
    )
    text = mismatch(load("marked"), changed(tmp_path, template=template))
    assert "the ids agree there, what counts does not" in text


def test_the_same_template_without_marks_is_no_difference(load, tmp_path):
    template = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    check_agreement(load("marked"), changed(tmp_path, template=template), ROWS, TokensConfig())


def test_a_template_that_differs_where_no_row_shows_it_is_no_difference(load, tmp_path):
    template = "{% if messages[0]['role'] == 'system' %}{{ 'x' }}{% endif %}" + MARKED
    reference = changed(tmp_path, template=template)
    check_agreement(load("marked"), reference, ROWS, TokensConfig())
    assert "the chat templates differ from character 3" in mismatch(load("marked"), reference, ())
    assert "view response" in mismatch(
        load("marked"), reference, [row({"role": "system", "content": "a"}, user("b"), says("c"))]
    )


def test_a_row_that_only_one_of_them_takes_is_shown(load, tmp_path):
    template = "{% if messages|length > 2 %}{{ raise_exception('too many') }}{% endif %}" + MARKED
    rows = [row(user("a"), says("b"), user("c"), says("d"))]
    assert "only reference cannot take it" in mismatch(
        load("marked"), changed(tmp_path, template=template), rows
    )


def test_without_a_row_that_both_take_bos_and_eos_must_agree(load, tmp_path):
    config = TokensConfig(template="plain")
    base = load("base", template="plain")
    reference = changed(tmp_path, config, base="base", adds_bos=False)
    assert "base begins a text with" in mismatch(base, reference, [Example(text="")], config)
    assert "first difference at token 0" in mismatch(base, reference, ROWS, config)
