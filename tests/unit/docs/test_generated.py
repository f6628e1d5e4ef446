"""The reference is what the code says: docs/generate.py writes it."""

from pydantic import BaseModel

from davir_ray.recipe import Recipe
from docs.generate import REFERENCE, pages
from docs.recipe_page import fields_of, homes_of, models_in, section


def test_the_committed_pages_are_fresh():
    written = {path.name: path.read_text() for path in REFERENCE.iterdir()}
    stale = [name for name, text in pages().items() if written.get(name) != text]
    assert (stale, set(written) - set(pages())) == ([], set()), "run .venv/bin/python docs/generate.py"


def test_every_setting_of_the_recipe_is_told_once():
    told = pages()["recipe.md"]
    for model in homes_of(Recipe):
        for name, field in model.model_fields.items():
            assert f"| `{name}` |" in told or f"`{name}: {field.default}`" in told, (model, name)


def test_a_section_of_several_shapes_tells_what_they_share_before_what_each_has():
    from typing import Literal

    class One(BaseModel):
        """The first."""

        type: Literal["one"] = "one"
        shared: int = 3
        own: bool = False

    class Other(BaseModel):
        """The second."""

        type: Literal["other"] = "other"
        shared: int = 3

    assert models_in(tuple[One | Other, ...]) == [One, Other]
    assert list(fields_of([One, Other])) == ["shared"]
    lines = list(section("a.b", [One, Other], {One: "a.b", Other: "a.b"}))
    assert [line for line in lines if line and not line.startswith("| setting") and "---" not in line] == [
        "## `a.b`",
        "| `shared` | whole number | `3` |  |",
        "### `a.b`, `type: one`",
        "The first.",
        "| `own` | true or false | `false` |  |",
        "### `a.b`, `type: other`",
        "The second.",
    ]
