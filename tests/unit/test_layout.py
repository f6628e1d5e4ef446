"""The tree: what may import what, and where Ray may be imported."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from davir_ray.storage import layout

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
    "influence",
    "measure",
    "scores",
    "coreset",
    "recipe",
    "runs",
    "drift",
    "target",
    "inputs",
    "job",
    "train",
    "report",
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


def layouts():
    """Return the classes of storage/layout.py that name paths."""
    return [one for one in vars(layout).values() if isinstance(one, type) and issubclass(one, layout.Layout)]


FILES = {
    one.name.rsplit("/", 1)[-1]
    for paths in layouts()
    for one in vars(paths).values()
    if isinstance(one, layout.Below) and "." in one.name
}
"""Names of files that have one meaning wherever they stand."""


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the string constants of a file, those within f-strings too; no docstrings."""
    told = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    yield from (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in told
    )


def names_given_to_join(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield what is a text in the code among the arguments of `storage.join`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "storage.join":
            yield from (one for one in node.args[1:] if isinstance(one, ast.Constant))
            yield from (one for one in node.args[1:] if isinstance(one, ast.JoinedStr))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_paths_of_a_store_and_of_runs_are_named_in_one_file(path):
    if path == Path(layout.__file__):
        return
    tree = ast.parse(path.read_text())
    assert not [text for text in texts(tree) if any(name in text for name in FILES)]
    assert not [ast.unparse(name) for name in names_given_to_join(tree)]


def test_the_tree_that_is_drawn_has_every_name():
    names = {one.name for paths in layouts() for one in vars(paths).values() if isinstance(one, layout.Below)}
    assert {name for name in names if name not in (layout.__doc__ or "")} == set()


def test_a_layout_names_paths_and_its_class_bare_names():
    assert layout.RunLayout.record == "record.json"
    assert layout.RunLayout("s3://b/runs/r-1").record == "s3://b/runs/r-1/record.json"
    assert layout.StoreLayout("/s/").measurements_of("f") == "/s/measurements/f"
    assert layout.RunLayout("r").export("parquet") == "r/coreset"
    assert layout.RunLayout("r").export("trl") == "r/exports/trl"
