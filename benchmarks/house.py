"""The shape of the code in figures, for one checkout or several side by side.

    python benchmarks/house.py . ../checkout-of-an-older-commit [--suite-seconds 3060 ...]

A *part* is a package of davir_ray or a module that lies loose beside them; an *arrow* goes from a part to another that
it imports anywhere, within functions too. Nothing is run and only files are read, so any commit can be looked at.

parts in a ring           parts that lie on a cycle of arrows
arrows against the order  the fewest arrows that point up, whatever the order of the parts
loose modules             modules beside the packages
dict[str, Any]            how often that type is written
files entered by run_all  files with a definition that pipeline.run_all reaches by name: what a function or class names
                          is followed to where it is defined (types in signatures are not); a class is entered with
                          all of its methods
lines                     of a function from `def` to its end, of a file all: with docstrings and blank lines
"""

import argparse
import ast
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "davir_ray"
LONG_FILE = 300
Arrow = tuple[str, str]
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One file, under its dotted name below the package."""

    name: str
    text: str
    is_package: bool

    @cached_property
    def tree(self) -> ast.Module:
        """The file, parsed."""
        return ast.parse(self.text)

    @property
    def part(self) -> str:
        """The package or loose module that it belongs to; empty for the package itself."""
        return self.name.split(".")[0]

    @cached_property
    def imported(self) -> dict[str, tuple[str, str]]:
        """Map each name that the file imports from its own package to a module and a name in it (or none)."""
        found: dict[str, tuple[str, str]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
                module = (node.module or "").removeprefix(PACKAGE).removeprefix(".")
                found |= {alias.asname or alias.name: (module, alias.name) for alias in node.names}
        return found

    @cached_property
    def definitions(self) -> dict[str, Definition]:
        """Map each name that the file defines to its definition."""
        found: dict[str, Definition] = {}
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found[node.name] = node
            elif isinstance(node, ast.Assign):
                found |= {one.id: node for one in node.targets if isinstance(one, ast.Name)}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = node
        return found


@dataclass(frozen=True)
class House:
    """The package as it lies in one checkout."""

    modules: dict[str, Module]

    @classmethod
    def read(cls, checkout: Path) -> "House":
        """Read all files of the package."""
        root = checkout / PACKAGE
        if not root.is_dir():
            raise SystemExit(f"{checkout}: has no folder {PACKAGE}")
        return cls({one.name: one for path in sorted(root.rglob("*.py")) for one in [_module(path, root)]})

    @cached_property
    def parts(self) -> set[str]:
        """Name all parts."""
        return {module.part for module in self.modules.values()} - {""}

    @property
    def loose(self) -> int:
        """Count the modules beside the packages."""
        return sum(
            "." not in name and name != "" and not one.is_package for name, one in self.modules.items()
        )

    @cached_property
    def arrows(self) -> set[Arrow]:
        """List which part imports which."""
        found = set()
        for module in self.modules.values():
            for source, name in module.imported.values():
                part = source.split(".")[0] or (name if name in self.parts else "")
                if part and module.part and part != module.part:
                    found.add((module.part, part))
        return found

    def entered(self, name: str) -> set[str]:
        """Name the modules with a definition that the definitions of this name reach, these included."""
        reached = set[tuple[str, str]]()
        pending = [(one.name, name) for one in self.modules.values() if name in one.definitions]
        while pending:
            if (one := self._defined(*pending.pop())) is None or one in reached:
                continue
            reached.add(one)
            pending += self._used(*one)
        return {module for module, _ in reached}

    def _defined(self, module: str, name: str) -> tuple[str, str] | None:
        """Follow a name through imports to the module that defines it; None where it is no definition of ours."""
        while (found := self.modules.get(module)) is not None and name not in found.definitions:
            if name not in found.imported:
                return None
            module, name = found.imported[name]
        return None if found is None else (module, name)

    def _used(self, module: str, name: str) -> Iterator[tuple[str, str]]:
        """Yield what a definition names: names of its own module, and attributes of modules that are imported."""
        found, definition = self.modules[module], self.modules[module].definitions[name]
        types = {id(node) for one in _annotations(definition) for node in ast.walk(one)}
        for node in ast.walk(definition):
            if id(node) in types:
                continue
            if isinstance(node, ast.Name):
                yield module, node.id
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                source, inner = found.imported.get(node.value.id, ("", ""))
                yield ".".join(filter(None, (source, inner))), node.attr

    @property
    def functions(self) -> list[int]:
        """List how long functions are."""
        trees = (module.tree for module in self.modules.values())
        return [
            (node.end_lineno or node.lineno) - node.lineno + 1
            for tree in trees
            for node in ast.walk(tree)
            if isinstance(node, Function)
        ]

    @property
    def files(self) -> list[int]:
        """List how long files are."""
        return [module.text.count("\n") for module in self.modules.values()]

    @property
    def untyped(self) -> int:
        """Count where `dict[str, Any]` is written."""
        nodes = (node for module in self.modules.values() for node in ast.walk(module.tree))
        return sum(
            isinstance(node, ast.Subscript) and ast.unparse(node) == "dict[str, Any]" for node in nodes
        )


def _module(path: Path, root: Path) -> Module:
    names = path.relative_to(root).with_suffix("").parts
    is_package = names[-1] == "__init__"
    return Module(".".join(names[:-1] if is_package else names), path.read_text(encoding="utf-8"), is_package)


def _annotations(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the types in the signatures of functions: what has only its type named is not entered by that."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, Function) and node.returns is not None:
            yield node.returns


def rings(arrows: set[Arrow]) -> list[set[str]]:
    """Return the largest sets of parts that all reach each other, of two parts or more."""
    parts = {part for arrow in arrows for part in arrow}
    reached = {part: _reached(part, arrows) for part in parts}
    found = {frozenset(one for one in reached[part] if part in reached[one]) for part in parts}
    return sorted((set(ring) for ring in found if len(ring) > 1), key=len)


def _reached(part: str, arrows: set[Arrow]) -> set[str]:
    found, pending = set[str](), [part]
    while pending:
        one = pending.pop()
        fresh = {target for source, target in arrows if source == one} - found
        found |= fresh
        pending += fresh
    return found


def fewest_up(ring: set[str], arrows: set[Arrow]) -> int:
    """Return how many arrows within a ring point up at the least, over all orders of its parts.

    Built from below: for each of the 2**n sets that may stand lowest, the best choice of the part on top of it, which
    costs as many arrows as that part has to parts above the set.
    """
    parts = sorted(ring)
    imports = [
        sum(1 << parts.index(to) for one, to in arrows if one == part and to in ring) for part in parts
    ]
    everyone = (1 << len(parts)) - 1
    best = [0] * (everyone + 1)
    for below in range(1, everyone + 1):
        tops = (index for index in range(len(parts)) if below >> index & 1)
        best[below] = min(
            best[below ^ 1 << top] + (imports[top] & everyone & ~below).bit_count() for top in tops
        )
    return best[everyone]


def figures(house: House) -> dict[str, str]:
    """Return the figures of a checkout by name."""
    cycles, functions, files = rings(house.arrows), house.functions, house.files
    percentiles = statistics.quantiles(functions, n=10)
    return {
        "files": f"{len(files)}",
        "parts": f"{len(house.parts)}",
        "parts in a ring": f"{sum(map(len, cycles))}",
        "arrows": f"{len(house.arrows)}",
        "arrows against the order": f"{sum(fewest_up(ring, house.arrows) for ring in cycles)}",
        "loose modules": f"{house.loose}",
        "dict[str, Any]": f"{house.untyped}",
        "files entered by run_all": f"{len(house.entered('run_all'))}",
        "lines of a function: median, 90th percentile, longest": f"{statistics.median(functions):.0f}, "
        f"{percentiles[-1]:.0f}, {max(functions)}",
        f"lines of the longest file; files above {LONG_FILE}": f"{max(files)}; "
        f"{sum(length > LONG_FILE for length in files)}",
    }


def table(columns: Sequence[dict[str, str]], names: Sequence[str]) -> Iterator[str]:
    """Yield the figures as a Markdown table, a column a checkout."""
    yield f"| | {' | '.join(names)} |"
    yield f"| --- |{' --: |' * len(names)}"
    for name in columns[0]:
        yield f"| {name} | {' | '.join(one[name] for one in columns)} |"


def main() -> None:
    """Print the figures of the checkouts that are named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkouts", nargs="+", type=Path)
    parser.add_argument("--suite-seconds", nargs="*", type=float, default=[], help="one a checkout")
    arguments = parser.parse_args()
    columns = [figures(House.read(checkout)) for checkout in arguments.checkouts]
    for column, seconds in zip(columns, arguments.suite_seconds, strict=bool(arguments.suite_seconds)):
        column["seconds of the suite"] = f"{seconds:,.0f}"
    for line in table(columns, [checkout.name or str(checkout) for checkout in arguments.checkouts]):
        print(line)


if __name__ == "__main__":
    main()
