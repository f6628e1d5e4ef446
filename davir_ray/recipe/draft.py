"""A first recipe for a corpus: what detection finds, with a comment on each line that a user may want to change."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from davir_ray.config import CorpusConfig
from davir_ray.corpus.formats import FORMATS
from davir_ray.corpus.listing import Listing, list_corpus
from davir_ray.corpus.paths import expand
from davir_ray.corpus.reading import read_rows
from davir_ray.errors import CorpusError, RecipeError, UnreadableFile
from davir_ray.foreign_text import printable
from davir_ray.models.adapter import read_json
from davir_ray.models.resolve import positions_of
from davir_ray.recipe.loading import parse_recipe
from davir_ray.recipe.yaml_tree import read_yaml

SMALL_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
ROWS_LOOKED_AT = 256
FILES_LOOKED_AT = 32
"""To tell what differs in a corpus that is not of one format."""
MOST_GROUPS = 50
MAX_LENGTH = 2048
NAMES_OF_IDS = ("id", "_id", "uid", "uuid", "key", "example_id", "row_id")


def draft(corpus: str, base: str | None = None) -> str:
    """Return a recipe for a corpus (a file, a folder or a glob) as commented YAML that `davir validate` takes.

    base: the model; without it a small one of the Hugging Face hub. Raises `CorpusError` for a corpus that cannot be
    read or understood, and `RecipeError` for a name that no recipe may hold.
    """
    listing = _listing(corpus)
    text = "\n".join([*_heading(), *_corpus(corpus, listing), *_models(base), *_rest(listing)]) + "\n"
    parse_recipe(read_yaml(text)[0], "the draft")
    return text


def _listing(corpus: str) -> Listing:
    """List a corpus as one source. Where its files have several formats, the `CorpusError` names files that differ."""
    try:
        return list_corpus(CorpusConfig(paths={"corpus": (corpus,)}))
    except UnreadableFile:
        raise
    except CorpusError as error:
        if len(formats := _formats(corpus)) < 2:
            raise
        found = ", ".join(f"{format} ({path})" for format, path in formats.items())
        raise CorpusError(
            f"{corpus}: its files are of several formats: {found}; name a folder or files of one format"
        ) from error


def _formats(corpus: str) -> dict[str, str]:
    """Return formats, each with the first file that has it: of several folders, one file each is looked at."""
    paths = [file.path for file in expand({"corpus": (corpus,)})]
    first_of = {path.rpartition("/")[0]: path for path in reversed(paths)}
    looked = sorted(first_of.values()) if len(first_of) > 1 else paths
    found: dict[str, str] = {}
    for path in looked[:FILES_LOOKED_AT]:
        found.setdefault(_format_of(path), path)
    return found


def _format_of(path: str) -> str:
    try:
        return list_corpus(CorpusConfig(paths={"corpus": (path,)}), 1).formats["corpus"]
    except CorpusError:
        return "none that is known"


def write_draft(path: str, text: str) -> None:
    """Write a recipe into a new file. Raises `RecipeError` where there is one already, or where none can be."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise RecipeError(
            f"{path}: is there already, and stays as it is; name another file with --output"
        ) from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be written: {error.strerror}") from error


def _heading() -> Iterator[str]:
    yield "# A first recipe, made by `davir init`. Every setting: docs/reference/recipe.md, or `davir schema`."
    yield "# `davir validate` checks it and shows rows as tokens, `davir plan` tells its cost, `davir run` runs it."
    yield ""


def _corpus(path: str, listing: Listing) -> Iterator[str]:
    (format,) = listing.formats.values()
    files, counts = (
        len({split.path for split in listing.splits}),
        [split.num_rows for split in listing.splits],
    )
    rows = "" if None in counts else f", {sum(filter(None, counts)):,} rows"
    yield "corpus:"
    yield f"  paths: {_written(path)}  # {files} {'file' if files == 1 else 'files'}{rows}"
    yield f"  format: {format}  # as it was found; `davir formats` shows the others"
    yield from _columns(listing, format)
    yield "  # limit: 1000  # only the first rows, to try things"
    yield ""


def _columns(listing: Listing, format: str) -> Iterator[str]:
    """Suggest columns that the format does not read as the name of a row, and as its group."""
    split = listing.splits[0]
    found = [row for _, row in islice(read_rows(split), ROWS_LOOKED_AT)]
    rows = [row for row in found if isinstance(row, Mapping)]
    names = dict.fromkeys(name for row in rows for name in row)
    others = [name for name in names if name not in FORMATS[format].columns]
    for name in [name for name in others if name.lower() in NAMES_OF_IDS][:1]:
        yield f"  # id: {_written(name)}  # your own name of a row, which stands beside its score"
    for name in others:
        if groups := _groups([row.get(name) for row in rows]):
            yield f"  # group_by: {_written(name)}  # {groups} values in the first {len(rows)} rows; for quotas"


def _groups(values: list[Any]) -> int:
    """Count the groups that the values of a column make; 0 where they make none."""
    found = {value for value in values if isinstance(value, str)}
    is_group = 1 < len(found) <= min(MOST_GROUPS, len(values) // 2) and all(
        isinstance(one, str) for one in values
    )
    return len(found) if is_group else 0


def _models(base: str | None) -> Iterator[str]:
    template, max_length = _read_of(base)
    yield "models:"
    named = "a folder, a hub id or a URI" if base else "a small model to begin with: name your own"
    yield f"  base: {_written(base or SMALL_MODEL)}  # {named}"
    yield ""
    yield "reference:  # DavIR's second model: the base, fine-tuned on the corpus by `davir reference` or `davir run`"
    yield "  fit: whole  # on all rows, as in the paper; sample takes a part, cross lets no model see what it measures"
    yield "  train: {lora: {r: 16}}  # an adapter; without lora all weights are trained"
    yield "# If you have one, remove the section above, and name it under models as `reference: models/reference`."
    yield ""
    yield "tokens:"
    yield f"  template: {template}  # chat is the model's own; or alpaca, plain, the path of a Jinja template"
    yield f"  max_length: {max_length}  # tokens; what is longer is cut"
    yield ""


def _read_of(base: str | None) -> tuple[str, int]:
    """Return the template for a model and the length that it takes; of one that is not in a folder here, the usual."""
    folder = Path(base or SMALL_MODEL).expanduser()
    if not (folder / "config.json").is_file():
        return "chat", MAX_LENGTH
    told = folder / "tokenizer_config.json"
    settings = read_json(told) if told.is_file() else {}
    has_template = bool(settings.get("chat_template")) or (folder / "chat_template.jinja").is_file()
    positions = positions_of(read_json(folder / "config.json")) or MAX_LENGTH
    return "chat" if has_template else "alpaca", min(MAX_LENGTH, positions)


def _rest(listing: Listing) -> Iterator[str]:
    yield "engine: {type: auto}  # vLLM on GPUs, transformers on a CPU; hash tries the recipe with made-up numbers"
    yield ""
    yield "score: {name: davir}  # (base loss - reference loss) / base loss; `davir scores` lists the others"
    yield ""
    yield "select:  # in order, each on what the one before it left"
    yield "  - {type: fraction, fraction: 0.06}  # the best 6%"
    yield "  # - {type: length_quota, fraction: 0.06}  # the same in each band of lengths: short rows do not win by it"
    yield ""
    yield "export: {formats: [parquet]}  # your own columns; messages and trl are for trainers"
    yield ""
    objective = "dpo  # or davir_dpo, sft" if listing.has_pairs else "sft"
    yield "# train:  # the base once more, on the core-set"
    yield f"#   objective: {objective}"
    yield ""
    yield "store: davir/store  # measurements: shared by all runs, nothing is measured twice"
    yield "output: davir/runs  # a folder a run"


def _written(text: str) -> str:
    """Write a text as YAML on one line, whatever is in it."""
    plain = yaml.safe_dump(text, width=float("inf"), allow_unicode=True).removesuffix("...\n").rstrip("\n")
    return plain if "\n" not in plain and plain == printable(plain) else json.dumps(text)
