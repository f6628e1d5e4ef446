"""What may be given as a recipe: a file, a run's folder, plain data, or a `Recipe`."""

import os
from collections.abc import Mapping
from typing import Any

from davir_ray.errors import RecipeError
from davir_ray.foreign_text import brief, is_text, why_no_place
from davir_ray.recipe import Recipe, parse_recipe
from davir_ray.recipe.loading import Overrides
from davir_ray.runs.run import load_run_or_recipe

Place = str | os.PathLike[str]
"""A path, or an fsspec URI."""
Given = Place | Mapping[str, Any] | Recipe
"""A recipe: the path of a YAML file, the folder of a run, its settings as plain data, or one that is read already."""
UNNAMED = "recipe"
"""What runs of a recipe without a file are called."""


def load(recipe: Given, overrides: Overrides = (), name: str | None = None) -> tuple[Recipe, str]:
    """Read a recipe; return it with the name that its runs carry. Raises `RecipeError`.

    name: in place of the file's name without its suffix.
    """
    if name is not None and (not name or "/" in name or not is_text(name)):
        raise RecipeError(f"name: found {brief(name)}; expected a name for folders, without `/`")
    if isinstance(recipe, Recipe):
        if overrides:
            tree = recipe.model_dump(mode="json")
            recipe = parse_recipe(tree, "the recipe", overrides, as_written=False)
        return recipe, name or UNNAMED
    if isinstance(recipe, Mapping):
        return parse_recipe(dict(recipe), "the recipe", overrides), name or UNNAMED
    loaded, own_name = load_run_or_recipe(place(recipe), overrides)
    return loaded, name or own_name


def place(path: Place) -> str:
    """Return a path or URI as text. Raises `RecipeError` for one that the files of runs must not or cannot name."""
    text = os.fspath(path)
    if why := why_no_place(text):
        raise RecipeError(why)
    return text
