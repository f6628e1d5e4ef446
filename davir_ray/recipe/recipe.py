"""The whole recipe: its sections, and what of them goes together."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from davir_ray.config.measuring import (
    CorpusConfig,
    EngineConfig,
    ExportConfig,
    MeasureConfig,
    ModelsConfig,
    ScoreConfig,
    TokensConfig,
)
from davir_ray.config.nightly import NightlyConfig
from davir_ray.config.section import AS_WRITTEN, Section, no_effect
from davir_ray.config.target import ReferenceConfig, TargetConfig, WarmupConfig
from davir_ray.config.training import TrainConfig
from davir_ray.coreset.rules import FractionRule, SelectRule
from davir_ray.logprobs.choice import INSIDE
from davir_ray.scores import SCORES, resolve_score
from davir_ray.scores.score import SETTINGS


class Recipe(Section):
    """Everything that decides what a run does."""

    label: str | None = Field(None, min_length=1, max_length=80)
    """What people call the run, in `davir status` and on its page. It changes nothing of the run, nor its name."""
    corpus: CorpusConfig
    tokens: TokensConfig = TokensConfig()
    models: ModelsConfig
    target: TargetConfig | None = None
    """A few rows of what the model should become good at."""
    warmup: WarmupConfig = WarmupConfig()
    engine: EngineConfig = EngineConfig()
    measure: MeasureConfig = MeasureConfig()
    score: ScoreConfig = ScoreConfig()
    select: tuple[SelectRule, ...] = (FractionRule(fraction=0.06),)
    export: ExportConfig = ExportConfig()
    references: dict[Literal["reference", "target"], ReferenceConfig] = Field({})
    """Makes the models of these names, where `models` names none. `reference:` alone stands for one called so."""
    train: TrainConfig | None = None
    """Training on the core-set."""
    nightly: NightlyConfig = NightlyConfig()
    """Limits of `davir nightly`."""
    report_to: tuple[Literal["wandb", "mlflow"], ...] = ()
    """Trackers that are told how measuring goes and what a run came to; those of trainings are `train.report_to`."""
    store: str = "davir/store"
    """Folder or fsspec URI of the measurement store, shared by all runs."""
    output: str = "davir/runs"
    """Folder or fsspec URI under which each run has a folder."""

    @field_validator("select", mode="before", json_schema_input_type=SelectRule | list[SelectRule])
    @classmethod
    def _one_rule(cls, value: Any) -> Any:
        """Accept a rule for a list of one."""
        return [value] if isinstance(value, dict) else value

    @model_validator(mode="before")
    @classmethod
    def _reference_alone(cls, value: Any) -> Any:
        """Accept `reference:` for `references: {reference: ...}`."""
        if not isinstance(value, dict) or "reference" not in value:
            return value
        alone = value["reference"]
        rest = {name: section for name, section in value.items() if name != "reference"}
        named = rest.get("references") or {}
        if alone is None or not isinstance(named, dict):
            return rest
        if "reference" in named:
            raise ValueError("reference: is `references.reference` too; keep one of them")
        return rest | {"references": {"reference": alone, **named}}

    @model_validator(mode="after")
    def _one_of_each(self) -> "Recipe":
        for name in self.references:
            if self.models.all_of(name):
                maker = name if name == "reference" else f"references.{name}"
                raise ValueError(f"models.{name} names a model and `{maker}` makes one; keep one of them")
        return self

    @model_validator(mode="after")
    def _references_can_begin(self) -> "Recipe":
        for name, one in self.references.items():
            if one.fit == "target" and self.target is None:
                raise ValueError(
                    f"references.{name}.fit: `target` is made on the rows of `target`, which is missing"
                )
            if name == "target" and one.fit != "target":
                raise ValueError(
                    f"references.target.fit: the model called target has seen it: `target`, not {one.fit}"
                )
            if name == "reference" and one.start != "base":
                raise ValueError(
                    f"{name}.start: the model called reference begins from the base; target may from others"
                )
            if one.start == "reference" and not self._has("reference"):
                raise ValueError(f"references.{name}.start: there is no model called reference")
        return self

    def _has(self, name: Literal["reference", "target"]) -> bool:
        """Tell whether a model is named or made."""
        return bool(self.models.all_of(name)) or name in self.references

    @model_validator(mode="after")
    def _target_is_there(self) -> "Recipe":
        """Check that a score that asks for a target, or for a model of it, has one."""
        if (score := SCORES.get(self.score.name)) is None:
            return self
        if score.reads_target and self.target is None:
            raise ValueError(
                f"score.name: {score.name} measures rows by a `target`, which the recipe does not have"
            )
        if any(need.model == "target" for need in score.needs) and not self._has("target"):
            raise ValueError(
                f"score.name: {score.name} measures under a model called target, which the recipe neither names nor "
                f"makes; `references: {{target: {{fit: target{', start: warmup' * (score.name == 'tov')}}}}}` makes it"
            )
        target = self.references.get("target")
        if score.name == "color_filter" and target is not None and target.start == "warmup":
            raise ValueError(
                "references.target.start: color_filter is of one model; `tov` is of a checkpoint each"
            )
        return self

    @model_validator(mode="after")
    def _target_is_read(self, info: ValidationInfo) -> "Recipe":
        """Refuse a target, and a model of it, that nothing reads; what a run wrote down has models in their place."""
        if info.context != AS_WRITTEN or (score := SCORES.get(self.score.name)) is None:
            return self
        made_of_it = any(one.fit == "target" for one in self.references.values())
        if self.target is not None and not score.reads_target and not made_of_it:
            raise no_effect(
                {"target": f"score {score.name} does not read it, and no reference has `fit: target`"}
            )
        if "target" in self.references and not any(need.model == "target" for need in score.needs):
            why = f"score {score.name} measures nothing under the model called target"
            raise no_effect({"references.target": why})
        return self

    @model_validator(mode="after")
    def _rendered_as_trl_does(self) -> "Recipe":
        if "trl_frozen" in self.export.formats and self.tokens.template != "chat":
            raise ValueError(
                "export.formats: trl_frozen is for tokens.template: chat, the model's own, which TRL renders with; "
                f"not for {self.tokens.template}"
            )
        return self

    @model_validator(mode="after")
    def _margins_are_scores(self) -> "Recipe":
        if "trl_reward" in self.export.formats and self.score.name in SCORES and self.score.name != "margin":
            raise ValueError(
                "export.formats: trl_reward writes a pair's score as the margin of a reward model, for score.name: "
                f"margin; {self.score.name} is none"
            )
        return self

    @model_validator(mode="after")
    def _rules_fit(self) -> "Recipe":
        score = SCORES.get(self.score.name)
        subtasks = tuple(self.target.paths) if self.target is not None and score and score.parts else ()
        for index, rule in enumerate(self.select):
            try:
                rule.check_corpus(self.corpus)
                if score is not None:
                    rule.over(subtasks)
                if rule.type == "round_robin" and self.score.order == "lowest":
                    raise ValueError(
                        "round_robin takes the highest score of each subtask, and score.order is lowest"
                    )
            except ValueError as error:
                raise ValueError(f"select.{index}: {error}") from error
        return self

    @model_validator(mode="after")
    def _nothing_without_effect_elsewhere(self, info: ValidationInfo) -> "Recipe":
        """Refuse settings that are given and that a setting of another section leaves without effect."""
        given = {
            "score": self.score,
            "tokens": self.tokens,
            "export": self.export,
            "nightly": self.nightly,
            "measure": self.measure,
            **({"warmup": self.warmup} if info.context == AS_WRITTEN else {}),
        }
        idle = {
            f"{section}.{name}": why
            for section, name, why in self._idle()
            if section in given and given[section].gives(name, info.context)
        }
        if idle:
            raise no_effect(idle)
        return self

    def _idle(self) -> Iterator[tuple[str, str, str]]:
        """Yield section and name of each setting that nothing reads, and why; of a score of the user's own, none."""
        if (score := SCORES.get(self.score.name)) is not None:
            idle = [name for name in SETTINGS if name not in score.settings]
            yield from (("score", name, f"score {score.name} does not read it") for name in idle)
            kinds = {need.kind for need in score.needs}
            if kinds and kinds <= INSIDE and not any(rule.needs for rule in self.select):
                yield "measure", "kind", f"score {score.name} measures no losses"
            if "warmup" not in self.makes:
                why = "models.warmup names it" if self.models.warmup else "nothing is measured under it"
                yield from (("warmup", name, why) for name in WarmupConfig.model_fields)
        template, hands_on = (
            self.tokens.template,
            {"trl", "trl_frozen", "trl_reward"} & set(self.export.formats),
        )
        if template in ("alpaca", "plain") and not hands_on:
            why = f"template {template} has no variables, and only an export of format trl hands them on"
            yield "tokens", "chat_template_kwargs", why
        if self.export.one_schema and self.corpus.source_by is None and len(self.corpus.paths) == 1:
            yield "export", "one_schema", "the corpus has one source"
        if self.nightly.max_bad_files != 0 and self.corpus.on_bad_file == "error":
            yield "nightly", "max_bad_files", "a bad file stops the run, unless corpus.on_bad_file is skip"

    @property
    def reference(self) -> ReferenceConfig | None:
        """How the model called reference is made, if it is."""
        return self.references.get("reference")

    @property
    def trainings(self) -> dict[str, TrainConfig]:
        """Name the trainings that it asks for: by the role of the model that is made, and `train`."""
        found = {str(name): one.train for name, one in self.references.items()}
        found |= {"warmup": self.warmup.train} if "warmup" in self.makes else {}
        return found | ({"train": self.train} if self.train is not None else {})

    @property
    def makes(self) -> tuple[Literal["reference", "warmup", "target"], ...]:
        """Name the models that the recipe makes, each after what it begins from. Raises `RecipeError` for no score."""
        begins_there = any(one.start == "warmup" for one in self.references.values())
        measured = any(need.model == "warmup" for need in resolve_score(self.score.name).needs)
        warms_up = not self.models.warmup and (begins_there or measured)
        names: tuple[Literal["reference", "warmup", "target"], ...] = ("reference", "warmup", "target")
        return tuple(name for name in names if name in self.references or (name == "warmup" and warms_up))
