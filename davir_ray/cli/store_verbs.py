"""`davir store`: what has been measured, listed, checked, merged and thrown away."""

import json
import re

import click

from davir_ray.cli.options import JSON, PLACE, argument
from davir_ray.cli.safe_output import print_lines


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Read a time span."""
    if value is None:
        return None
    if not (found := re.fullmatch(r"(\d+)([mhdw])", value)):
        raise click.BadParameter(f"{value!r} is not an age such as 90m, 12h, 30d or 8w")
    return int(found[1]) * {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}[found[2]]


@click.group()
def store() -> None:
    """Look after what has been measured; no model is loaded, and Ray is not started."""


@store.command("info")
@PLACE
@JSON
def store_info(store_or_recipe: str, as_json: bool) -> None:
    """Tell what the store holds, by model and by prepared corpus."""
    from davir_ray.runs.run import place_of
    from davir_ray.store.info import info_lines, store_info

    info = store_info(place_of(store_or_recipe, "store"))
    print_lines(info_lines(info))
    if as_json:
        click.echo(json.dumps(info.as_dict()))


@store.command("verify")
@argument("store_run_or_recipe")
@click.option("--delete", is_flag=True, help="Remove what is damaged: the next run measures it again.")
def store_verify(store_run_or_recipe: str, delete: bool) -> None:
    """Check every part of a store; of a run or a recipe its results, too. Exit code 6 if one is damaged and stays."""
    from davir_ray.cli.store_lines import verify_lines

    print_lines(verify_lines(store_run_or_recipe, delete=delete))


@store.command("compact")
@PLACE
def store_compact(store_or_recipe: str) -> None:
    """Merge small parts into large ones; runs may go on meanwhile."""
    from davir_ray.cli.store_lines import compact_lines
    from davir_ray.runs.run import place_of

    print_lines(compact_lines(place_of(store_or_recipe, "store")))


@store.command("prune")
@PLACE
@click.option("--keep", multiple=True, metavar="FINGERPRINT", help="A model whose measurements stay.")
@click.option(
    "--older-than",
    callback=_seconds,
    metavar="AGE",
    help="Only what no run has used for so long: 90m, 12h, 30d, 8w.",
)
@click.option("--yes", is_flag=True, help="Remove it; otherwise it is only told what would go.")
def store_prune(store_or_recipe: str, keep: tuple[str, ...], older_than: float | None, yes: bool) -> None:
    """Remove measurements of models, and with --older-than prepared corpora, that are no longer wanted."""
    if not keep and older_than is None:
        raise click.UsageError("say what to --keep, or what goes: --older-than")
    from davir_ray.cli.store_lines import prune_lines
    from davir_ray.runs.run import place_of

    print_lines(prune_lines(place_of(store_or_recipe, "store"), keep, older_than, remove=yes))
