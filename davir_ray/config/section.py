"""The base of all parts of a recipe, and how a setting says that it is not always read.

The setting carries that itself, in place of a class for each `objective`, `fit` and `type`: many depend on more than
one other (`eval_corpus`, `max_steps`, `deepspeed`), and `engine.type` may be any `module:Class`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

AS_WRITTEN = {"as_written": True}
"""Context of a validation: a person wrote this down, so whatever is in it was meant."""
NO_EFFECT = "no_effect"
"""The type of pydantic's error for settings that nothing would read."""


@dataclass(frozen=True)
class ReadIf:
    """Marks a setting that is read only beside some values of others in its section; elsewhere it is refused.

        beta: Annotated[float, ReadIf(lambda train: train.objective != "sft", "objective sft has no beta")] = 0.1

    holds: the section -> whether the setting is read. why: why not, for where it is not.
    """

    holds: Callable[[Any], bool]
    why: str


def no_effect(settings: Mapping[str, str]) -> PydanticCustomError:
    """Return the error for settings that are given and not read: `a.b` within the section that raises it -> why not."""
    text = "; ".join(f"{name}: has no effect: {why}" for name, why in settings.items())
    return PydanticCustomError(NO_EFFECT, "{text}", {"text": text, "settings": dict(settings)})


class Section(BaseModel):
    """Base of all parts of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _nothing_without_effect(self, info: ValidationInfo) -> "Section":
        """Refuse settings that are given and not read, all of them in one error of type `NO_EFFECT`."""
        idle = {
            name: mark.why
            for name, field in type(self).model_fields.items()
            for mark in field.metadata
            if isinstance(mark, ReadIf) and not mark.holds(self) and self.gives(name, info.context)
        }
        if idle:
            raise no_effect(idle)
        return self

    def gives(self, name: str, context: Mapping[str, Any] | None) -> bool:
        """Tell whether a setting is given: that it is there where a person wrote, else that it is not the default.

        What a run wrote down has every setting, and was meant only where it differs.
        """
        if context == AS_WRITTEN:
            return name in self.model_fields_set
        return bool(getattr(self, name) != type(self).model_fields[name].default)
