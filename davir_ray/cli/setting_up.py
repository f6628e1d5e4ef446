"""The verbs before the first run: is everything there, a first recipe, and what editors and shells want to know."""

import json
import shlex
from dataclasses import asdict

import click
from click.shell_completion import get_completion_class

from davir_ray.cli.safe_output import checked_place, files_and_folders, print_lines


@click.command()
@click.argument("recipe", required=False, callback=checked_place, shell_complete=files_and_folders)
@click.option("--json", "as_json", is_flag=True, help="End stdout with one line of JSON, whatever is found.")
def doctor(recipe: str | None, as_json: bool) -> None:
    """Look whether Python, packages, GPUs, and what a recipe reaches for, are well; tell what mends what is not.

    Libraries are imported, each in a process of its own. Exit code 9 if something is wrong.
    """
    from davir_ray.cli.doctor_lines import check_well, doctor_lines
    from davir_ray.doctor.examine import examine

    findings = examine(recipe)
    print_lines(doctor_lines(findings))
    if as_json:
        click.echo(json.dumps({"findings": [asdict(one) for one in findings]}))
    check_well(findings)


@click.command()
@click.argument("corpus", callback=checked_place, shell_complete=files_and_folders)
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
