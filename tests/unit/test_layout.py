"""The tree: what may import what, and where Ray may be imported."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "davir_ray"
ORDER = (
    "foreign_text",
    "errors",
    "schema",
    "ids",
    "progress",
    "config",
    "storage",
    "cluster",
    "models",
    "corpus",
    "tokens",
    "store",
    "logprobs",
    "measure",
    "scores",
    "coreset",
    "recipe",
    "runs",
    "drift",
    "inputs",
    "job",
    "train",
    "pipeline",
    "planning",
    "nightly",
    "cli",
)
"""Packages and loose modules of davir_ray: each imports only what stands before it."""

MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names of the modules that a file imports, also within functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "davir_ray":
            yield from (f"davir_ray.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def part_of(path: Path) -> str:
    """Name the package, or the loose module, that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_package_has_its_place_in_the_order():
    assert {part_of(path) for path in MODULES} - {"__init__"} == set(ORDER)
    loose = [path for path in PACKAGE.glob("*.py") if path.stem != "__init__"]
    assert len(loose) <= 8


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_below_it(path):
    own = part_of(path)
    known = {name.split(".")[1] for name in imported(path) if name.startswith("davir_ray.")} - {"__version__"}
    above = {name for name in known if own != "__init__" and ORDER.index(name) > ORDER.index(own)}
    assert not above


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_that_imports_ray_says_so_in_its_name(path):
    uses_ray = any(name.split(".")[0] == "ray" for name in imported(path))
    assert not uses_ray or path.stem.startswith("ray_") or part_of(path) == "cluster"
