"""What the command line takes in and prints: names and texts that are not ours, made safe to look at."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper

import click

from davir_ray.errors import RecipeError
from davir_ray.foreign_text import holds_credentials, is_text, refusal, shown


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


def checked_place(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refuse a place (a recipe, a run, a store) that the files of runs must not or cannot name."""
    if not is_text(value):
        raise RecipeError(f"{value}: holds bytes that are not UTF-8; give it another name")
    if holds_credentials(value):
        raise RecipeError(refusal(value))
    return value


def checked_places(
    ctx: click.Context, param: click.Parameter, value: str | tuple[str, ...] | None
) -> str | tuple[str, ...] | None:
    """Refuse as `checked_place` does one place or several, or let none be given."""
    for place in (value,) if isinstance(value, str) else value or ():
        checked_place(ctx, param, place)
    return value
