"""`davir push-to-hub` and `davir score-table`: what a run found, for other people."""

import click

from davir_ray.cli.options import argument
from davir_ray.cli.safe_output import print_lines


@click.command("push-to-hub")
@argument("run_dir")
@click.argument("repo")
@click.option("--private", is_flag=True, help="If the data set is not there yet, make it a private one.")
@click.option("--license", "licence", metavar="ID", help="In place of what the cards of the sources say.")
def push_to_hub(run_dir: str, repo: str, private: bool, licence: str | None) -> None:
    """Upload the core-set of a run, with a card, to a data set OWNER/NAME of the Hugging Face hub."""
    from davir_ray.sharing.hub import push_to_hub

    print_lines(push_to_hub(run_dir, repo, private=private, licence=licence))


@click.group("score-table")
def score_table() -> None:
    """Hand measurements on, or take them in: who has the same corpus and recipe selects without a model."""


@score_table.command("export")
@argument("run_dir")
@argument("file")
def score_table_export(run_dir: str, file: str) -> None:
    """Write what a run measured into one Parquet file: sums and token counts, no text and no token."""
    from davir_ray.sharing.table_export import export_table

    print_lines(export_table(run_dir, file))


@score_table.command("import")
@argument("file")
@argument("store_or_recipe", default="davir/store")
def score_table_import(file: str, store_or_recipe: str) -> None:
    """Add a score table to a store, davir/store if none is named; tell with which recipe it is found there."""
    from davir_ray.runs.run import place_of
    from davir_ray.sharing.table_import import import_table

    print_lines(import_table(file, place_of(store_or_recipe, "store")))
