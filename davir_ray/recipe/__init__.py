"""The whole recipe, over its sections in config/ and the selection rules in coreset/.

recipe.py     the class, and what of its settings goes together
draft.py      a first recipe for a corpus; json_schema.py: what editors check one with
loading.py    YAML and `--set` -> a recipe; yaml_tree.py: values with their lines; complaints.py: what is wrong, told
"""

from davir_ray.recipe.loading import load_recipe, parse_recipe
from davir_ray.recipe.recipe import Recipe

__all__ = ["Recipe", "load_recipe", "parse_recipe"]
