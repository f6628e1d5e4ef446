"""The card of a core-set on the Hugging Face hub: what was chosen from what, by which recipe, under which licence."""

import glob
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from huggingface_hub import DatasetCardData

from davir_ray.foreign_text import printable, without_credentials
from davir_ray.recipe import Recipe
from davir_ray.runs.record import RunRecord
from davir_ray.sharing.names import shareable_name, shareable_tree

TAG = "davir_ray"
"""By which a card says who made it."""
KEPT_HERE: Any = {
    "store": True,
    "output": True,
    "nightly": True,
    "report_to": True,
    "engine": {"replicas", "num_cpus"},
}
"""Settings that say nothing of what was chosen."""
SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)
"""The hub's words for how many rows there are."""
COLUMNS = {
    "davir_score": "score of the row",
    "davir_rank": "its place in the ranking of the corpus, 1 for the best",
    "davir_example_id": "hash of its content",
    "davir_source": "source of the corpus",
    "davir_file": "file of the corpus, without its folders",
    "davir_row": "position in that file, from 0",
}


def card(record: RunRecord, recipe: Recipe, licences: Sequence[str], folders: Mapping[str, str]) -> str:
    """Return the text of README.md. folders: of each source, or of `default`, the folder of its rows."""
    header = DatasetCardData(
        license=licences[0] if len(licences) == 1 else list(licences),
        size_categories=next((word for most, word in SIZES if record.selected < most), "1B<n<10B"),
        tags=[TAG, "data-selection"],
        configs=[
            {"config_name": name, "data_files": f"{glob.escape(folder)}/*.parquet"}
            for name, folder in folders.items()
        ],
    )
    return f"---\n{header.to_yaml()}\n---\n\n" + "\n".join(_text(record, recipe)) + "\n"


def _text(record: RunRecord, recipe: Recipe) -> Iterator[str]:
    share = record.selected / max(record.rows, 1)
    yield "# A core-set"
    yield ""
    yield (
        f"{record.selected:,} of {record.rows:,} rows ({share:.1%}), {record.tokens:,} response tokens, chosen by "
        f"davir_ray {record.davir_ray} with the score {_code(record.score)}. The rows are as they stand in their "
        "sources; the columns behind them are:"
    )
    yield ""
    yield from (f"- `{name}`: {meaning}" for name, meaning in COLUMNS.items())
    yield ""
    yield from _shares(record)
    yield "## How it was made"
    yield ""
    yield from _models(record, recipe)
    yield f"Measured by {_code(record.engine.type)} in {_code(record.engine.dtype)}; run `{record.run_id}`. The recipe:"
    yield ""
    yield "```yaml"
    tree = recipe.model_dump(mode="json", exclude=KEPT_HERE, exclude_defaults=True)
    written = yaml.safe_dump(shareable_tree(tree), sort_keys=False, width=100)
    yield written.rstrip("\n").replace("```", "'''")
    yield "```"


def _shares(record: RunRecord) -> Iterator[str]:
    yield from _table(
        ("source", "rows", "chosen", "share before", "share after"),
        [
            (
                _code(name),
                f"{one.rows:,}",
                f"{one.selected:,}",
                f"{one.share_before:.1%}",
                f"{one.share_after:.1%}",
            )
            for name, one in record.sources.items()
        ],
    )
    yield from _table(
        ("status", "rows"), [(f"`{name}`", f"{count:,}") for name, count in record.status.items()]
    )


def _models(record: RunRecord, recipe: Recipe) -> Iterator[str]:
    models = [
        (name, one, identity) for name, some in record.models.items() for one, identity in enumerate(some)
    ]
    yield from _table(
        ("model", "name", "hash of its content"),
        [
            (
                _code(name),
                _code(shareable_name(recipe.models.called(name, at).model_name_or_path)),
                f"`{identity}`",
            )
            for name, at, identity in models
        ],
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    if rows:
        yield f"| {' | '.join(head)} |"
        yield f"| {' | '.join('---' for _ in head)} |"
        yield from (f"| {' | '.join(row)} |" for row in rows)
        yield ""


def _code(text: str) -> str:
    """Write foreign text as code, in which nothing is markup, and which ends where it should."""
    plain = printable(without_credentials(text)).replace("`", "'").replace("|", "/")
    return f"`{plain}`"
