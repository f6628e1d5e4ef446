"""The JSON schema of a recipe, for editors: names, types, bounds and meanings of all settings, as YAML has them.

What goes together with what is told by `davir validate` alone.
"""

from typing import Any

from davir_ray.recipe.recipe import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, short forms (a model as text, one rule for a list of rules) included."""
    schema = Recipe.model_json_schema()
    named = schema["properties"]["references"]["additionalProperties"]
    meaning = "How the model called reference is made: the same as `references.reference`."
    schema["properties"]["reference"] = {"anyOf": [named, {"type": "null"}], "description": meaning}
    return {"$schema": DIALECT, **schema, "title": "Recipe of davir_ray"}
