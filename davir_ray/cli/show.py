"""`davir show`: how rows are asked for on the command line."""

import json
import re

import click

from davir_ray.cli.options import JSON, argument
from davir_ray.cli.safe_output import print_lines


def _ranks(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read one rank, or the first and the last."""
    if value is None:
        return None
    if not (found := re.fullmatch(r"(\d{1,18})(?:\.\.(\d{1,18}))?", value)):
        raise click.BadParameter(f"{value!r} is neither a rank such as 7 nor ranks such as 1..20")
    return int(found[1]), int(found[2] or found[1])


def _place(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """Read a file and a row."""
    if value is None:
        return None
    if not (found := re.fullmatch(r"(.+):(\d{1,18})", value, re.DOTALL)):
        raise click.BadParameter(f"{value!r} is not a file and a row, from 0, such as data/a.jsonl:12")
    return found[1], int(found[2])


@click.command()
@argument("run_dir")
@click.option("--rank", "ranks", callback=_ranks, metavar="1..20", help="Rows of these ranks.")
@click.option(
    "--id", "own_id", metavar="X", help="The row of this id: your own (corpus.id), or the example id."
)
@click.option("--row", "place", callback=_place, metavar="FILE:12", help="The row of a file, from 0.")
@click.option("--dropped-by", metavar="RULE", help="Rows that a rule left out, such as quota.")
@click.option("--status", metavar="STATUS", help="Rows of a status, such as no_score.")
@click.option(
    "--limit", default=20, type=click.IntRange(min=1), metavar="N", help="How many rows at most: 20."
)
@JSON
def show(
    run_dir: str,
    ranks: tuple[int, int] | None,
    own_id: str | None,
    place: tuple[str, int] | None,
    dropped_by: str | None,
    status: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Print rows of a finished run: text, losses, score, and what happened to them. Without options: the best."""
    from davir_ray.cli.shown import shown_lines
    from davir_ray.runs.rows import Which, show
    from davir_ray.schema import Status

    if status is not None and status not in list(Status):
        raise click.BadParameter(f"{status!r} is not one of {', '.join(Status)}", param_hint="--status")
    found = show(run_dir, Which(ranks, own_id, place, dropped_by, status), limit)
    print_lines(shown_lines(found))
    if as_json:
        click.echo(json.dumps(found.as_dict()))
