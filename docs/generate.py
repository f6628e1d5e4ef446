"""Write docs/reference/ from the code.

    .venv/bin/python docs/generate.py

recipe.md from the recipe's models, scores.md from SCORES, formats.md from FORMATS, verbs.md from the commands. The
pages are committed; tests/unit/docs/test_generated.py holds that they are what this program writes.
"""

import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from textwrap import dedent

import click

REFERENCE = Path(__file__).resolve().parent / "reference"
sys.path[:0] = [str(REFERENCE.parents[1])]

from davir_ray import scores as scores_package  # noqa: E402
from davir_ray.cli import main as davir  # noqa: E402
from davir_ray.corpus.formats import FORMATS, Format  # noqa: E402
from davir_ray.scores import SCORES  # noqa: E402
from davir_ray.scores.score import Score  # noqa: E402
from docs.recipe_page import recipe_page  # noqa: E402
from docs.tables import table  # noqa: E402

NOTE = "<!-- Made by docs/generate.py from the code: change it there. -->"


def pages() -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    made = {
        "recipe.md": recipe_page(),
        "scores.md": scores_page(),
        "formats.md": formats_page(),
        "verbs.md": verbs_page(),
    }
    return {name: f"{NOTE}\n\n" + "\n".join(lines).rstrip() + "\n" for name, lines in made.items()}


def scores_page() -> Iterator[str]:
    """Yield the page of the scores: a table, the docstring of each method, and how to write one of your own."""
    yield from ["# Scores", ""]
    yield "What a cost names is measured of each row once, and stored for ever. `davir scores` prints the same table."
    yield ""
    rows = [[f"`{one.name}`", one.formula, one.cost, one.paper] for one in SCORES.values()]
    yield from table(["score", "formula", "cost", "paper"], rows)
    for names, lines in methods():
        yield from ["", f"## {names}", "", *lines]
    yield from ["", "## A score of your own", "", *own_score()]


def methods() -> Iterator[tuple[str, list[str]]]:
    """Yield the scores that each module of the package defines, in the order of SCORES, and what its docstring says."""
    names = [one.name for one in iter_modules(scores_package.__path__)]
    modules = [import_module(f"{scores_package.__name__}.{name}") for name in names]
    at = {
        id(value): module for module in modules for value in vars(module).values() if isinstance(value, Score)
    }
    for module in dict.fromkeys(at[id(one)] for one in SCORES.values()):
        yield named(one.name for one in SCORES.values() if at[id(one)] is module), docstring(module)


def own_score() -> Iterator[str]:
    """Yield what the docstring of the scores' package says of one's own, with its code as a block."""
    lines = docstring(scores_package)
    lines = lines[next(index for index, line in enumerate(lines) if line.startswith("A score of your own")) :]
    code = [index for index, line in enumerate(lines) if line.startswith("    ")]
    first, last = code[0], code[-1] + 1
    yield from [
        *lines[:first],
        "```python",
        *dedent("\n".join(lines[first:last])).splitlines(),
        "```",
        *lines[last:],
    ]


def formats_page() -> Iterator[str]:
    """Yield the page of the formats of a corpus."""
    yield from ["# Formats of a corpus", ""]
    yield "In the order in which `format: auto` looks for them: of formats that read as many of a corpus's columns, the"
    yield "first is taken. [Your corpus](../formats.md) says how columns are renamed, and what becomes of those that a"
    yield "format neither needs nor obeys. `davir formats` prints this list."
    everywhere = [
        name for name in FORMATS["text"].refuses if all(name in one.refuses for one in FORMATS.values())
    ]
    yield from ["", f"Every format refuses a row with {named(everywhere)}: status `bad_format`."]
    for one in FORMATS.values():
        yield from format_section(one, everywhere)


def format_section(one: Format, everywhere: Sequence[str]) -> Iterator[str]:
    """Yield what is said of one format. everywhere: columns that each of them refuses."""
    yield from ["", f"## `{one.name}`", "", "```json", one.example, "```", ""]
    refuses = [column for column in one.refuses if column not in everywhere]
    kinds = {"needs": one.needs, "needs one of": one.one_of, "obeys": one.may_use, "refuses too": refuses}
    yield from (f"- {kind} {named(columns)}" for kind, columns in kinds.items() if columns)


def named(columns: Iterable[str]) -> str:
    """Write columns as a list."""
    return ", ".join(f"`{column}`" for column in columns)


def verbs_page() -> Iterator[str]:
    """Yield the page of the verbs of `davir`."""
    yield from ["# Verbs", "", f"{davir.help} A verb with `--help` prints what stands here.", ""]
    yield "The [exit codes](../faults.md#exit-codes) are the same for all."
    for name, verb in verbs(davir, "davir"):
        yield from verb_section(name, verb)


def verbs(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    """Yield each verb of a group with its full name, in the order of the alphabet."""
    for word, verb in sorted(group.commands.items()):
        if isinstance(verb, click.Group):
            yield from verbs(verb, f"{name} {word}")
        else:
            yield f"{name} {word}", verb


def verb_section(name: str, verb: click.Command) -> Iterator[str]:
    """Yield what is said of one verb."""
    context = click.Context(verb, info_name=name)
    yield from ["", f"## {name}", "", "```text", verb.get_usage(context).removeprefix("Usage: "), "```", ""]
    yield " ".join((verb.help or "").split())
    options = [one.get_help_record(context) for one in verb.params if isinstance(one, click.Option)]
    if options:
        yield from [
            "",
            *table(["option", "meaning"], [[f"`{option}`", text] for option, text in filter(None, options)]),
        ]


def docstring(of: object) -> list[str]:
    """Return the lines of a docstring, without the indentation of its own."""
    return (inspect.getdoc(of) or "").splitlines()


def main() -> None:
    """Write the pages."""
    for name, text in pages().items():
        (REFERENCE / name).write_text(text)


if __name__ == "__main__":
    main()
