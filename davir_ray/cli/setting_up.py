"""The verbs before the first run: is everything there, a first recipe, what there is to choose from, and what
editors and shells want to know."""

import json
import os
import shlex
import sys
from dataclasses import asdict

import click
from click.shell_completion import get_completion_class

from davir_ray.cli.options import argument
from davir_ray.cli.safe_output import checked_place, print_lines
from davir_ray.cluster.unexpected import ending
from davir_ray.errors import BrokenEnvironment


@click.command()
@argument("recipe", required=False)
@click.option("--json", "as_json", is_flag=True, help="End stdout with one line of JSON, whatever is found.")
def doctor(recipe: str | None, as_json: bool) -> None:
    """Look whether Python, packages, GPUs, and what a recipe reaches for, are well; tell what mends what is not.

    Libraries are imported, each in a process of its own. Exit code 9 if something is wrong.
    """
    from davir_ray.cli.doctor_lines import check_well, finding_lines
    from davir_ray.doctor.examine import examine
    from davir_ray.doctor.in_time import LEFT

    findings, left = [], len(LEFT)
    for one in examine(recipe):
        print_lines(finding_lines(one))
        findings.append(one)
    if as_json:
        click.echo(json.dumps({"findings": [asdict(one) for one in findings]}))
    try:
        check_well(findings)
    except BrokenEnvironment as error:
        if len(LEFT) == left:
            raise
        _end_at_once(error)


def _end_at_once(error: BrokenEnvironment) -> None:
    """End as an error does, without waiting for a look that may never end."""
    lines, code = ending(error)
    print_lines(lines, err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@click.command()
@argument("corpus")
@click.option(
    "--base", callback=checked_place, metavar="MODEL", help="The model: a folder, a hub id or a URI."
)
@click.option("--output", default="recipe.yaml", callback=checked_place, metavar="FILE", help="recipe.yaml.")
def init(corpus: str, base: str | None, output: str) -> None:
    """Look at a corpus (a file, a folder or a glob) and write a commented recipe for it into a new file."""
    from davir_ray.recipe.draft import draft, write_draft

    write_draft(output, draft(corpus, base))
    print_lines([f"wrote {output}; what it would do with your rows: davir validate {shlex.quote(output)}"])


@click.command()
def schema() -> None:
    """Print the JSON schema of a recipe, with which editors complete and check one."""
    from davir_ray.recipe.json_schema import recipe_schema

    click.echo(json.dumps(recipe_schema(), indent=2))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what a shell runs to complete verbs, options and files of `davir`."""
    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root().command
    click.echo(found(root, {}, "davir", "_DAVIR_COMPLETE").source())


@click.command()
def scores() -> None:
    """List the scores with formula, needs, cost and paper."""
    from davir_ray.scores import SCORES

    for one in SCORES.values():
        print_lines(
            [one.name, f"  formula  {one.formula}", f"  cost     {one.cost}", f"  paper    {one.paper}"]
        )


@click.command()
def formats() -> None:
    """List the corpus formats, each with a row, the columns that it obeys, and those that make a row unusable."""
    from davir_ray.corpus.formats import FORMATS

    for one in FORMATS.values():
        print_lines([one.name, f"  {one.example}", f"  obeys    {', '.join(one.columns)}"])
        print_lines([f"  refuses  {', '.join(one.refuses)}"])
