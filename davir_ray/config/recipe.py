"""The whole recipe, and how it is read.

Precedence: the defaults of the sections, then the YAML file, then each `--set a.b=c` in order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, field_validator, model_validator

from davir_ray.config.measuring import (
    CorpusConfig,
    EngineConfig,
    ExportConfig,
    ModelsConfig,
    ScoreConfig,
    TokensConfig,
)
from davir_ray.config.nightly import NightlyConfig
from davir_ray.config.rules import FractionRule, KeepSourcesRule, NearDuplicatesRule, QuotaRule, SelectRule
from davir_ray.config.section import Section
from davir_ray.config.training import ReferenceConfig, TrainConfig
from davir_ray.errors import RecipeError


class Recipe(Section):
    """Everything that decides what a run does."""

    corpus: CorpusConfig
    tokens: TokensConfig = TokensConfig()
    models: ModelsConfig
    engine: EngineConfig = EngineConfig()
    score: ScoreConfig = ScoreConfig()
    select: tuple[SelectRule, ...] = (FractionRule(fraction=0.06),)
    export: ExportConfig = ExportConfig()
    reference: ReferenceConfig | None = None
    """Makes `models.reference`, where that names none."""
    train: TrainConfig | None = None
    """Training on the core-set."""
    nightly: NightlyConfig = NightlyConfig()
    """Limits of `davir nightly`."""
    store: str = "davir/store"
    """Folder or fsspec URI of the measurement store, shared by all runs."""
    output: str = "davir/runs"
    """Folder or fsspec URI under which each run has a folder."""

    @field_validator("select")
    @classmethod
    def _one_signature(cls, rules: tuple[SelectRule, ...]) -> tuple[SelectRule, ...]:
        kinds = {(rule.num_perm, rule.shingle) for rule in rules if isinstance(rule, NearDuplicatesRule)}
        if len(kinds) > 1:
            raise ValueError("near_duplicates rules must have one num_perm and one shingle size")
        return rules

    @model_validator(mode="after")
    def _one_reference(self) -> "Recipe":
        if self.reference is not None and self.models.reference is not None:
            raise ValueError("models.reference names a model and `reference` makes one; keep one of them")
        return self

    @model_validator(mode="after")
    def _rendered_as_trl_does(self) -> "Recipe":
        if "trl_frozen" in self.export.formats and self.tokens.template in ("alpaca", "plain"):
            raise ValueError(
                f"export.formats: trl_frozen is for tokens.template: chat, which TRL renders with; "
                f"not for {self.tokens.template}"
            )
        return self

    @model_validator(mode="after")
    def _known_groups(self) -> "Recipe":
        if self.corpus.group_by is None:
            for index, rule in enumerate(self.select):
                if isinstance(rule, QuotaRule) and rule.by == "group":
                    raise ValueError(
                        f"select.{index}: a quota `by: group` (the default) counts by the column that corpus.group_by "
                        "names, and that is not set; set it, or say `by: source`"
                    )
        return self

    @model_validator(mode="after")
    def _known_sources(self) -> "Recipe":
        if self.corpus.source_by is None:
            for rule in self.select:
                if isinstance(rule, KeepSourcesRule) and (
                    unknown := set(rule.sources) - set(self.corpus.paths)
                ):
                    names = ", ".join(self.corpus.paths)
                    raise ValueError(
                        f"select: keep_sources names {', '.join(sorted(unknown))}; corpus.paths has {names}"
                    )
        return self


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `a.b=c` overrides; values are read as YAML. Raises `RecipeError`."""
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: expected a mapping of sections (corpus, models, ...)")
    return parse_recipe(override(tree, overrides), str(path))


def override(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply `a.b=c` overrides to a recipe given as plain data, in order."""
    for text in overrides:
        _apply(tree, text)
    return tree


def parse_recipe(tree: dict[str, Any], name: str) -> Recipe:
    """Validate a recipe given as plain data. `name` stands in error messages."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, one['loc'])) or 'recipe'}: {_said(one)}" for one in error.errors()]
        raise RecipeError(f"{name}: not a valid recipe\n" + "\n".join(lines)) from error


def _said(error: Any) -> str:
    """Say a pydantic error as this project would."""
    if error["type"] == "extra_forbidden":
        return "there is no such setting"
    given = error["input"]
    return f"{error['msg']}, not {given!r}" if isinstance(given, str | int | float) else str(error["msg"])


def _apply(tree: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise RecipeError(f"--set {setting}: expected a.b=value")
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        child = node[parent] = node.get(parent) or {}
        if isinstance(child, str) and parents[0] == "models":
            child = node[parent] = {"model_name_or_path": child}
        if not isinstance(child, dict):
            raise RecipeError(f"--set {setting}: `{parent}` is not a section")
        node = child
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {setting}: the value is not valid YAML: {error}") from error
