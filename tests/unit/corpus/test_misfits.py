"""A corpus of which no row can be used says why, and what would help."""

import json
import re

import pytest
import yaml

from davir_ray.cli.inspection import inspect, validate
from davir_ray.config import CorpusConfig
from davir_ray.corpus.listing import list_corpus
from davir_ray.corpus.misfits import no_row_fits
from davir_ray.corpus.reading import examples
from davir_ray.errors import CorpusError
from davir_ray.recipe import parse_recipe


def turns(*names):
    return [{"speaker": name, "text": f"from {name}"} for name in names]


def write(folder, rows):
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return CorpusConfig(paths=str(folder / "a.jsonl"))


def parsed(corpus):
    listing = list_corpus(corpus)
    return listing, [
        (s, one) for s in listing.splits for one in examples(s, corpus, listing.formats[s.source])
    ]


def said(folder, rows, **settings):
    corpus = write(folder, rows).model_copy(update=settings)
    listing, found = parsed(corpus)
    assert all(one.example is None for _, one in found)
    return corpus, "\n".join(no_row_fits(found, corpus, listing.formats))


def follow(corpus, text):
    """Take over the settings that a message names."""
    lines = re.findall(r"corpus\.(\w+): (\{.*?\}|\w+)(?=, corpus|$)", text, re.MULTILINE)
    settings = {name: yaml.safe_load(value) for name, value in lines}
    return CorpusConfig(paths=corpus.paths, **settings)


@pytest.mark.parametrize("names", [("Alice", "bot"), ("user", "bot"), ("system", "Alice", "bot")])
def test_unknown_turn_keys_and_roles_are_shown_with_the_tags_that_read_them(tmp_path, names):
    corpus, text = said(tmp_path, [{"conversations": turns(*names)}] * 2)
    assert "no row of the corpus can be used; of the first 2:" in text
    assert f"bad_format: 2, for instance {tmp_path}/a.jsonl row 0: column `conversations[0]`" in text
    assert "found an object with the keys speaker, text" in text
    _, found = parsed(follow(corpus, text))
    assert [turn["role"] for turn in found[0][1].example.messages][-2:] == ["user", "assistant"]


def test_roles_that_cannot_be_guessed_leave_the_keys(tmp_path):
    _, text = said(tmp_path, [{"conversations": turns("Alice", "Bob", "Carol")}])
    assert "corpus.tags: {role_tag: speaker, content_tag: text}\n" in text + "\n"


def test_a_format_that_would_fit_is_named_with_its_line(tmp_path):
    rows = [{"messages": "see question", "question": "q", "response": "a"}]
    corpus, text = said(tmp_path, rows)
    assert "source `corpus` is read as `messages`, as in {" in text
    _, found = parsed(follow(corpus, text))
    assert found[0][1].example.messages[-1]["content"] == "a"


def test_each_status_is_counted_and_shown_once(tmp_path):
    rows = [{"question": "q", "answer": ""}] * 3 + [{"question": 5, "answer": "a"}]
    _, text = said(tmp_path, rows)
    assert "  empty: 3, for instance" in text
    assert f"  bad_format: 1, for instance {tmp_path}/a.jsonl row 3: column `question`" in text


def test_validate_and_inspect_show_the_reasons_themselves(tmp_path, tiny_models):
    corpus = write(tmp_path, [{"conversations": turns("Alice", "bot")}])
    base, reference = tiny_models
    tree = {"corpus": corpus.model_dump(), "models": {"base": base, "reference": reference}}
    recipe, reason = parse_recipe(tree, "recipe"), "column `conversations[0]`: expected a role"
    with pytest.raises(CorpusError, match=re.escape(f"row 0: {reason}")):
        list(validate(recipe, colour=False))
    assert f"bad_format: {reason}" in "\n".join(inspect(recipe, 3, colour=False))
