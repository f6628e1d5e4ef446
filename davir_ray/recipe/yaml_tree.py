"""YAML -> plain data, with the line that each value stands on.

As safe as `yaml.safe_load`, and stricter: a key may stand once, tags are not read, and size, depth and the number of
values are limited, aliases counted as often as they are used. What looks like a date is text, and so is every key.
"""

from math import isfinite
from typing import Any

import yaml

from davir_ray.foreign_text import brief

MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_NUMBER = 100
"""Characters of a number."""

Path = tuple[str | int, ...]
Lines = dict[Path, int]

TAG = "tag:yaml.org,2002:"
TEXT = {TAG + "str", TAG + "timestamp", TAG + "value"}
NUMBERS = {TAG + "int", TAG + "float"}
CONSTANTS = {TAG + "null", TAG + "bool"}
MERGE = TAG + "merge"
TOO_DEEP = f"is nested more than {MAX_DEPTH} deep"


class YamlProblem(ValueError):
    """What is wrong with a YAML text, and on which line (from 1)."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def read_yaml(text: str) -> tuple[Any, Lines]:
    """Return the value of a YAML document, and the line of each value by its path. Raises `YamlProblem`."""
    try:
        node = _Loader(text).get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlProblem(line, f"has the character {brief(text[error.position])}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise YamlProblem(line, f"is not valid YAML: {error.problem}{_on_tabs(text, line)}") from error
    reading = _Reading()
    return (None if node is None else reading.value(node, ())), reading.lines


def dotted(path: Path) -> str:
    """Write a path as `--set` takes it."""
    return ".".join(map(str, path))


def _on_tabs(text: str, line: int) -> str:
    lines = text.split("\n")
    start = lines[line - 1] if line <= len(lines) else ""
    return "; indent with spaces, not with tabs" if "\t" in start[: len(start) - len(start.lstrip())] else ""


class _Loader(yaml.SafeLoader):
    """Composes nodes, and stops before Python's own limit of recursion does."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.depth > MAX_DEPTH:
            raise YamlProblem(self.line + 1, TOO_DEEP)
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Reading:
    """Turns nodes into values. lines: where each stands."""

    def __init__(self) -> None:
        self.lines: Lines = {}
        self.count = 0
        self.constructor = yaml.constructor.SafeConstructor()

    def value(self, node: yaml.Node, path: Path) -> Any:
        self.count += 1
        if len(path) > MAX_DEPTH:  # an alias that holds itself
            raise _problem(node, TOO_DEEP)
        if self.count > MAX_VALUES:
            raise _problem(node, f"has more than {MAX_VALUES:,} values, aliases counted each time")
        if isinstance(node, yaml.ScalarNode):
            value = self.scalar(node, f"{dotted(path)}: " if path else "")
        elif isinstance(node, yaml.SequenceNode) and node.tag == TAG + "seq":
            value = [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode) and node.tag == TAG + "map":
            value = self.mapping(node, path)
        else:
            raise _problem(node, f"has the tag {brief(node.tag)}; tags are not read")
        self.lines[path] = _line(node)
        return value

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _problem(key, "has a key that is not text")
            if key.tag == MERGE:
                merged = self.merged(value, path) | merged
                continue
            at = (*path, key.value)
            if key.value in own:
                raise _problem(key, f"`{dotted(at)}` is there twice, the first time on line {self.lines[at]}")
            own[key.value] = self.value(value, at)
            self.lines[at] = _line(key)
        return merged | own

    def merged(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        found = self.value(node, (*path, "<<"))
        some = found if isinstance(found, list) else [found]
        if not all(isinstance(one, dict) for one in some):
            raise _problem(node, "merges (<<) what is no mapping")
        return {name: value for one in reversed(some) for name, value in one.items()}

    def scalar(self, node: yaml.ScalarNode, where: str) -> Any:
        if node.tag in TEXT:
            return node.value
        if node.tag not in NUMBERS | CONSTANTS:
            raise _problem(node, f"{where}has the tag {brief(node.tag)}; tags are not read")
        if len(node.value) > MAX_NUMBER:
            raise _problem(node, f"{where}found a number of {len(node.value):,} digits")
        try:
            value = self.constructor.construct_object(node)
        except (ValueError, LookupError) as error:
            raise _problem(
                node, f"{where}found {brief(node.value)}, which is not what its tag says"
            ) from error
        if node.tag in NUMBERS and not (isfinite(value) and (isinstance(value, float) or abs(value) < 2**63)):
            raise _problem(
                node, f"{where}found {brief(node.value)}; expected a finite number of at most 64 bits"
            )
        return value


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _problem(node: yaml.Node, reason: str) -> YamlProblem:
    return YamlProblem(_line(node), reason)
