"""Arguments and options that several verbs share."""

from functools import partial

import click

from davir_ray.cli.safe_output import checked_place, checked_places, files_and_folders
from davir_ray.progress import quietly

argument = partial(click.argument, callback=checked_place, shell_complete=files_and_folders)
RECIPE = argument("recipe")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="a.b=c", help="Override a setting of the recipe."
)
LIMIT = click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="The same as --set corpus.limit=N."
)
LABEL = click.option(
    "--label", metavar="TEXT", help="What people call the run; the same as --set label=TEXT."
)
JSON = click.option("--json", "as_json", is_flag=True, help="On success, end stdout with one line of JSON.")
QUIET = click.option(
    "--quiet",
    "-q",
    is_flag=True,
    expose_value=False,
    callback=lambda ctx, _, value: ctx.with_resource(quietly()) if value else None,
    help="No progress and no notes on stderr: only warnings and errors.",
)
OUT = click.option(
    "--out", callback=checked_places, metavar="FILE", help="Write the page as this file: a path or a URI."
)
PLACE = argument("store_or_recipe")
