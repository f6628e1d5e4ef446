"""JSON with a type: what is written and what --json prints comes from a model, and what is read is checked by it."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from davir_ray.errors import DamagedPart
from davir_ray.foreign_text import brief

VERSION = "schema_version"
"""The field of a model that says which layout its JSON has."""


class Written(BaseModel):
    """Base of what a run leaves behind as JSON. Its fields are documented where they stand."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        ser_json_inf_nan="constants",
        serialize_by_alias=True,
        validate_by_name=True,
        validate_by_alias=True,
    )

    def tree(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return self.model_dump(mode="json")


W = TypeVar("W", bound=Written)


def parsed(model: type[W], tree: Mapping[str, Any], uri: str, where: str = "") -> W:
    """Read plain JSON data as a model.

    Raises `DamagedPart` with the file, `where` in it, the first field that does not fit, and what was expected.
    """
    if VERSION in model.model_fields and tree.get(VERSION) != (known := model.model_fields[VERSION].default):
        raise DamagedPart(uri, f"{where}{VERSION}: found {brief(tree.get(VERSION))}; expected {known}")
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise DamagedPart(uri, where + _misfit(error)) from error


def _misfit(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{field}: is missing"
    if first["type"] == "extra_forbidden":
        return f"{field}: there is no such field"
    return f"{field}: found {brief(first['input'])}; expected {first['msg'].removeprefix('Input should be ')}"
