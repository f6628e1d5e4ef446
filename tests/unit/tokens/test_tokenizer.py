import pickle
import subprocess
import sys

import pytest

from davir_ray.config import TokensConfig
from davir_ray.errors import ModelError, RecipeError
from davir_ray.tokens.tokenizer import load_tokenizer, tokenizer_identity
from tests.unit.tokens.conversations import says, user
from tests.unit.tokens.families import FAMILIES, save


def test_a_model_without_a_chat_template_says_what_to_set(load):
    with pytest.raises(
        ModelError, match=r"no chat template; set tokens\.template to alpaca, plain or the path"
    ):
        load("base")


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(ModelError, match=str(tmp_path)):
        load_tokenizer(str(tmp_path), TokensConfig())


def test_a_template_file_that_is_not_there_is_a_recipe_error(load):
    with pytest.raises(RecipeError, match=r"tokens\.template: nowhere\.jinja"):
        load("smollm2", template="nowhere.jinja")


@pytest.mark.parametrize("text", ["{% for m in messages %}", "{{ raise_exception('never') }}", "nothing"])
def test_a_template_that_cannot_render_an_answer_is_a_model_error(load, tmp_path, text):
    path = tmp_path / "broken.jinja"
    path.write_text(text)
    with pytest.raises(ModelError, match="a question and its answer cannot be rendered"):
        load("smollm2", template=str(path))


def test_template_variables_that_we_set_are_refused(load):
    with pytest.raises(RecipeError, match=r"chat_template_kwargs: tools is set by davir_ray itself"):
        load("smollm2", chat_template_kwargs={"tools": []})


def test_a_template_file_replaces_the_model_s_own(load, tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text("{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endfor %}")
    text, _ = load("smollm2", template=str(path)).chat([user("Hello"), says("Yes")])
    assert text == "<|im_start|>Hello<|im_end|><|im_start|>Yes<|im_end|>"


def test_bos_is_what_the_tokenizer_adds_by_itself(load):
    for name, expected in (
        ("base", ["<s>"]),
        ("gpt2", []),
        ("llama3", ["<|begin_of_text|>"]),
        ("smollm2", []),
    ):
        tokenizer = load(name, template="plain")
        assert [tokenizer.decode([number]) for number in tokenizer.bos_ids] == expected


def test_the_closing_of_an_answer_is_read_from_the_template(load):
    closings = {name: load(name).closing for name, family in FAMILIES.items() if family.template}
    assert closings == {name: family.end for name, family in FAMILIES.items() if family.template}


def test_the_identity_is_the_same_for_equal_content(load, tmp_path):
    again = load_tokenizer(save(FAMILIES["smollm2"], tmp_path), TokensConfig())
    assert tokenizer_identity(again) == tokenizer_identity(load("smollm2"))
    assert len(tokenizer_identity(again)) == 32


def test_everything_that_decides_the_ids_is_in_the_identity(load, tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text(FAMILIES["smollm2"].template + " ")
    identities = [
        tokenizer_identity(one)
        for one in (
            load("smollm2"),
            load("smollm2", template="plain"),
            load("smollm2", template="alpaca"),
            load("smollm2", template=str(path)),
            load("smollm2", chat_template_kwargs={"enable_thinking": False}),
            load("llama3"),
            load_tokenizer(save(FAMILIES["smollm2"], tmp_path / "more", vocabulary=300), TokensConfig()),
        )
    ]
    assert len(set(identities)) == len(identities)


def test_what_is_cut_or_counted_is_not_in_the_identity(load):
    other = load("smollm2", max_length=8, score_on="all", truncation="drop")
    assert tokenizer_identity(other) == tokenizer_identity(load("smollm2"))


def test_ids_are_those_of_transformers(load):
    for name in ("smollm2", "llama3"):
        tokenizer = load(name)
        text = "Hello <|im_end|> d\u00e9j\u00e0 \U0001f600\n\nYes"
        assert tokenizer.encode(text)[0].tolist() == tokenizer.hf(text, add_special_tokens=False)["input_ids"]


def test_a_worker_that_gets_a_tokenizer_loads_no_torch(load):
    code = (
        "import pickle, sys; import davir_ray.store.ray_prepare\n"
        "tokenizer = pickle.load(sys.stdin.buffer); tokenizer.chat([{'role': 'user', 'content': 'a'}])\n"
        "sys.exit('torch' in sys.modules)"
    )
    sent = pickle.dumps(load("smollm2"))
    assert subprocess.run([sys.executable, "-c", code], input=sent, check=False).returncode == 0
