"""The base of all parts of a recipe."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of all parts of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
