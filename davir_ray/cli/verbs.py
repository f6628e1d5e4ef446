"""The `davir` command: parse, call, print. Each verb is one function of the package.

Exit codes: 0 done; 1 unexpected; 2 recipe or usage; 3 corpus, or nothing of it could be chosen; 4 model or tokenizer;
5 engine; 6 store; 7 training; 8 nightly limits; 9 environment; 130 interrupted (Ctrl-C).
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from davir_ray import __version__
from davir_ray.cli.options import JSON, LABEL, LIMIT, OUT, QUIET, RECIPE, SET, argument
from davir_ray.cli.safe_output import checked_places, print_lines, safe_usage, spell_what_a_terminal_lacks
from davir_ray.cli.setting_up import completion, doctor, formats, init, schema, scores
from davir_ray.cli.sharing_verbs import push_to_hub, score_table
from davir_ray.cli.show import show
from davir_ray.cli.store_verbs import store
from davir_ray.cluster.unexpected import ending

if TYPE_CHECKING:
    from davir_ray.recipe import Recipe
    from davir_ray.runs.record import RunRecord
    from davir_ray.storage.typed import Written

W = TypeVar("W", bound="Written")
R = TypeVar("R", bound="RunRecord")

PASSED_ON = (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError)
"""What click itself tells of."""


class Verbs(click.Group):
    """Turns whatever is raised into a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb, with the working folder importable: a recipe may name code that lies there."""
        sys.path.insert(0, os.getcwd())
        try:
            with safe_usage():
                return super().invoke(ctx)
        except PASSED_ON:
            raise
        except (Exception, KeyboardInterrupt) as error:
            lines, exit_code = ending(error)
            print_lines(lines, err=True)
            ctx.exit(exit_code)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a command."""
        spell_what_a_terminal_lacks()
        return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments."""
        with safe_usage():
            return super().make_context(*args, **kwargs)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Choose the training data that a language model can still learn from."""


for verb in (doctor, init, schema, completion, scores, formats, show, store, push_to_hub, score_table):
    main.add_command(verb)


@main.command()
@RECIPE
@SET
@LIMIT
@LABEL
@click.option("--dry-run", is_flag=True, help="The same as `davir plan`.")
@QUIET
@JSON
def score(
    recipe: str,
    overrides: tuple[str, ...],
    limit: int | None,
    label: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Measure what is missing, score, rank, select and export."""
    if dry_run:
        return _plan(*_load(recipe, overrides, limit, label), as_json)
    from davir_ray import api
    from davir_ray.cli.closing_lines import record_lines

    done = api.score(recipe, overrides=_settings(overrides, limit, label))
    _finish_run(done.record, record_lines, as_json)


@main.command()
@RECIPE
@SET
@LIMIT
@click.option("--probe", is_flag=True, help="Take the gradients of a few rows, to tell how fast they go.")
@QUIET
@JSON
def plan(recipe: str, overrides: tuple[str, ...], limit: int | None, probe: bool, as_json: bool) -> None:
    """Tell what a run would measure and why, what it would reuse, and how long that takes; claims nothing."""
    _plan(*_load(recipe, overrides, limit), as_json, probe)


@main.command()
@RECIPE
@SET
@LIMIT
@LABEL
@QUIET
@JSON
def nightly(
    recipe: str, overrides: tuple[str, ...], limit: int | None, label: str | None, as_json: bool
) -> None:
    """Do what is new, once however often it is started; end with the drift against the night before.

    Exit code 8 if the night went past a limit of the recipe's `nightly` section, 3 if nothing could be chosen.
    """
    loaded = _load(recipe, overrides, limit, label)
    from davir_ray.cli.night_lines import night_lines
    from davir_ray.nightly.limits import check_limits
    from davir_ray.nightly.night import run_night
    from davir_ray.nightly.nights import Busy

    night = run_night(*loaded)
    if isinstance(night, Busy):
        return _finish(night, night_lines, as_json)
    _finish_run(night, night_lines, as_json)
    check_limits(night)


@main.command()
@argument("run_or_recipe")
@SET
@LIMIT
@LABEL
@QUIET
@JSON
def select(
    run_or_recipe: str, overrides: tuple[str, ...], limit: int | None, label: str | None, as_json: bool
) -> None:
    """Choose again from stored measurements; no model is loaded."""
    from davir_ray import api
    from davir_ray.cli.closing_lines import record_lines

    chosen = api.select(run_or_recipe, overrides=_settings(overrides, limit, label))
    _finish_run(chosen.record, record_lines, as_json)


@main.command()
@argument("run_dir")
@QUIET
@JSON
def resume(run_dir: str, as_json: bool) -> None:
    """Go on with scoring that was stopped, by the recipe in the run's folder."""
    from davir_ray.runs.run import Run

    run = Run.existing(run_dir)
    loaded = _load(run_dir, (), None)
    from davir_ray import pipeline
    from davir_ray.cli.closing_lines import resumed_lines

    record = pipeline.score(*loaded, resumed=run.run_id)
    _finish_run(record, partial(resumed_lines, trains=loaded[0].train is not None), as_json)


@main.command()
@argument("run_or_output")
@JSON
def status(run_or_output: str, as_json: bool) -> None:
    """Tell from its files how far a run is; or a line of each run of an output folder or a recipe."""
    from davir_ray.cli.status import Statuses, status_lines, statuses

    found = statuses(run_or_output)
    print_lines(status_lines(found, run_or_output))
    if as_json:
        click.echo(json.dumps(Statuses(runs=tuple(found)).tree()))


@main.command()
@argument("run_dir")
@OUT
def report(run_dir: str, out: str | None) -> None:
    """Write a finished run as one page of HTML that needs no server and no network: report.html in its folder."""
    from davir_ray.report.page import write_report

    print_lines([f"report    {write_report(run_dir, out)}"])


@main.command()
@click.argument("run_dirs", nargs=-1, required=True, metavar="RUN RUN...", callback=checked_places)
@click.option(
    "--score",
    "scores",
    multiple=True,
    metavar="NAME",
    help="Also what this score makes of the first run's measurements: `davir select` makes that run.",
)
@OUT
@QUIET
@JSON
def compare(run_dirs: tuple[str, ...], scores: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """Compare the core-sets and rankings of finished runs, each with the first; with --out as a page, too."""
    if len(run_dirs) + len(scores) < 2:
        raise click.UsageError("compare needs two runs or more, or a run and --score NAME")
    from davir_ray import api
    from davir_ray.cli.compare_lines import as_dict, compare_lines
    from davir_ray.report.comparison import compared
    from davir_ray.report.comparison_page import write_comparison

    others = [api.Run.open(run_dirs[0]).select(overrides={"score.name": name}).folder for name in scores]
    found = compared([*run_dirs, *others])
    print_lines(compare_lines(found))
    if out is not None:
        print_lines([f"page      {write_comparison(found, out)}"])
    if as_json:
        click.echo(json.dumps(as_dict(found)))


@main.command()
@RECIPE
@SET
@LIMIT
@QUIET
@JSON
def reference(recipe: str, overrides: tuple[str, ...], limit: int | None, as_json: bool) -> None:
    """Make the models that the recipe measures under: references, and the warm-up of scores that ask for one."""
    loaded = _load(recipe, overrides, limit)
    from davir_ray.cli.training_lines import reference_lines
    from davir_ray.train import steps as training

    record, _ = training.make_models(*loaded)
    _finish(record, reference_lines, as_json)


@main.command()
@argument("run_or_recipe")
@SET
@LIMIT
@QUIET
@JSON
def train(run_or_recipe: str, overrides: tuple[str, ...], limit: int | None, as_json: bool) -> None:
    """Train on the core-set of a finished run, or on `train.corpus`: SFT, DPO or DavIR-DPO."""
    loaded = _load(run_or_recipe, overrides, limit)
    from davir_ray.cli.training_lines import training_lines
    from davir_ray.train import steps as training

    _finish(training.train(*loaded), training_lines, as_json)


@main.command()
@RECIPE
@SET
@LIMIT
@LABEL
@QUIET
@JSON
def run(recipe: str, overrides: tuple[str, ...], limit: int | None, label: str | None, as_json: bool) -> None:
    """Make the reference, score, select and train, as far as the recipe asks, in one resumable job."""
    from davir_ray import api
    from davir_ray.cli.training_lines import run_lines

    done = api.run(recipe, overrides=_settings(overrides, limit, label))
    _finish_run(done.record, run_lines, as_json)


@main.command()
@RECIPE
@SET
@LIMIT
def validate(recipe: str, overrides: tuple[str, ...], limit: int | None) -> None:
    """Check recipe, corpus, models, tokenizers and storage; show three rendered rows."""
    from davir_ray.cli.inspection import validate as lines

    print_lines(lines(_load(recipe, overrides, limit)[0], colour=sys.stdout.isatty()))


@main.command()
@argument("recipe_or_run")
@SET
@click.option("--rows", type=click.IntRange(min=1), help="How many rows of a recipe to show: 3.")
@click.option(
    "--row", "row_id", metavar="ID", help="A row of a run: your own id (corpus.id), or the example id."
)
@click.option("--view", metavar="VIEW", help="Of a row of a run: response, or response_alone or rejected.")
@JSON
def inspect(
    recipe_or_run: str,
    overrides: tuple[str, ...],
    rows: int | None,
    row_id: str | None,
    view: str | None,
    as_json: bool,
) -> None:
    """Print rows of a recipe as tokens, coloured by what is scored; or one row of a finished run, by token losses."""
    if row_id is None:
        if view is not None or as_json:
            raise click.UsageError("--view and --json are for a row of a run: say which with --row ID")
        return _inspect_recipe(recipe_or_run, overrides, rows)
    if overrides or rows is not None:
        raise click.UsageError("--set and --rows are for a recipe, and --row is for a run")
    from davir_ray.cli.token_lines import as_dict, coloured_lines, table_lines
    from davir_ray.runs.token_losses import token_row
    from davir_ray.schema import View

    if view is not None and view not in list(View):
        raise click.BadParameter(f"{view!r} is not one of {', '.join(View)}", param_hint="--view")
    row, tokenizer = token_row(recipe_or_run, row_id, View(view or View.RESPONSE))
    print_lines((coloured_lines if sys.stdout.isatty() else table_lines)(row, tokenizer.decode))
    if as_json:
        click.echo(json.dumps(as_dict(row, tokenizer.decode)))


def _inspect_recipe(recipe: str, overrides: tuple[str, ...], rows: int | None) -> None:
    from davir_ray.cli.inspection import inspect as lines
    from davir_ray.errors import RecipeError
    from davir_ray.runs.run import holds_run

    if holds_run(recipe):
        raise RecipeError(f"{recipe}: is a run; --row ID shows the tokens of a row, `davir show` prints ids")
    print_lines(lines(_load(recipe, overrides, None)[0], rows or 3, colour=sys.stdout.isatty()))


def _load(
    path: str, overrides: tuple[str, ...], limit: int | None, label: str | None = None
) -> "tuple[Recipe, str]":
    from davir_ray.runs.run import load_run_or_recipe

    return load_run_or_recipe(path, _settings(overrides, limit, label))


def _settings(overrides: tuple[str, ...], limit: int | None, label: str | None = None) -> list[str]:
    """Return the overrides of a recipe; `--limit` and `--label` are among them."""
    limited = [f"corpus.limit={limit}"] if limit else []
    labelled = [] if label is None else [f"label={json.dumps(label)}"]  # whatever it looks like, it is text
    return [*overrides, *limited, *labelled]


def _plan(recipe: "Recipe", name: str, as_json: bool, probe: bool = False) -> None:
    from davir_ray.cli.plan_lines import plan_lines
    from davir_ray.planning.ray_plan import preview

    _finish(preview(recipe, name, probing=probe), plan_lines, as_json)


def _finish(record: W, show: Callable[[W], Iterable[str]], as_json: bool) -> None:
    print_lines(show(record))
    if as_json:
        from davir_ray.cluster.ray_session import leave

        leave()
        click.echo(json.dumps(record.tree()))


def _finish_run(record: R, show: Callable[[R], Iterable[str]], as_json: bool) -> None:
    """Print what a run came to; one that chose nothing ends with exit code 3, at every start."""
    from davir_ray.cli.closing_lines import check_chosen

    _finish(record, show, as_json)
    check_chosen(record)


if __name__ == "__main__":
    main()
