"""What the command line takes in and prints: names and texts that are not ours, made safe to look at."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper

import click
from click.shell_completion import CompletionItem

from davir_ray.errors import RecipeError
from davir_ray.foreign_text import shown, why_no_place


def print_lines(lines: Iterable[str], err: bool = False) -> None:
    """Print results, a line each; to stderr if `err`."""
    for line in lines:
        click.echo(shown(line), err=err)


def spell_what_a_terminal_lacks() -> None:
    """Print letters that the terminal's encoding does not have as their numbers, instead of failing at them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def safe_usage() -> Iterator[None]:
    """Make what click says of wrong arguments safe to print: it quotes them."""
    try:
        yield
    except click.ClickException as error:
        error.message = shown(error.message)  # type: ignore[misc]  # final, and printed by click alone
        raise


def files_and_folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a place by the names of files and folders."""
    return [CompletionItem(incomplete, type="file")]


def checked_place(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse a place (a recipe, a run, a store) that the files of runs must not or cannot name."""
    if value is not None and (why := why_no_place(value)):
        raise RecipeError(why)
    return value


def checked_places(
    ctx: click.Context, param: click.Parameter, value: str | tuple[str, ...] | None
) -> str | tuple[str, ...] | None:
    """Refuse as `checked_place` does one place or several, or let none be given."""
    for place in (value,) if isinstance(value, str) else value or ():
        checked_place(ctx, param, place)
    return value
