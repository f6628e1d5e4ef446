"""LLaMA-Factory's dataset_info.json -> the settings of a corpus, each data set a source.

What a data set says there is obeyed, or refused by name: what would need another program's hub or code, what changes
which rows there are, and images, video and audio.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from davir_ray import storage
from davir_ray.config import TagsConfig
from davir_ray.config.nearest import did_you_mean
from davir_ray.corpus.turns import MEDIA
from davir_ray.errors import DavirError, RecipeError
from davir_ray.foreign_text import brief

INFO = "dataset_info.json"
OURS = ("paths", "format", "columns", "tags", "sources")
"""Settings of a corpus that a dataset_info.json takes the place of."""

PLACES = ("file_name", "cloud_file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url")
"""Its keys that say where the rows are."""
NOT_OBEYED = {
    "ms_hub_url": "rows on ModelScope are not read; download them, and give their `file_name`",
    "om_hub_url": "rows on openMind are not read; download them, and give their `file_name`",
    "script_url": "a script is not run; write its rows into a file, and give that as `file_name`",
    "hf_hub_url": "which files of the hub these are is not known here; name them by corpus.paths: "
    "hf://datasets/{value}/**/*.parquet, with the same columns",
    "subset": "a subset is one of the hub; name its files by corpus.paths",
    "folder": "a folder is one of the hub; name its files by corpus.paths",
    "num_samples": "LLaMA-Factory draws rows anew each time; corpus.limit takes the first ones, and a rule chooses",
}
"""Its keys that cannot be obeyed -> why, and what to do."""
KEYS = (*PLACES, *NOT_OBEYED, "formatting", "ranking", "split", "columns", "tags")

ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
SHAREGPT = {"messages": "conversations"}
SIDES = ("chosen", "rejected")
BESIDE = ("system", "tools", "kto_tag")
COLUMNS = (*ALPACA, "history", *SHAREGPT, *BESIDE, *SIDES)
"""Its names of columns."""


def with_data_sets(tree: Any, name: str) -> Any:
    """Return a recipe as plain data, with each `dataset_info` in it replaced by what that says.

    name: of the recipe, for errors. Raises `RecipeError`.
    """
    if not isinstance(tree, dict):
        return tree
    found = {key: with_data_sets(value, name) for key, value in tree.items()}
    if not isinstance(found.get("dataset_info"), str):
        return found
    if given := [key for key in OURS if found.get(key)]:
        raise RecipeError(
            f"{name}: {given[0]}: stands beside `dataset_info`, which says it; keep one of the two"
        )
    info, datasets = found.pop("dataset_info"), found.pop("datasets", None)
    return found | corpus_settings(info, datasets)


def corpus_settings(uri: str, datasets: Any) -> dict[str, Any]:
    """Return `paths` and `sources` of some data sets that a dataset_info.json describes. Raises `RecipeError`."""
    if not uri.endswith(".json"):
        uri = storage.join(uri, INFO)
    info = _read(uri)
    if (
        not isinstance(datasets, list | tuple)
        or not datasets
        or not all(isinstance(one, str) for one in datasets)
    ):
        raise RecipeError(f"corpus.datasets: expected a list of data sets of {uri}, found {brief(datasets)}")
    paths, sources = {}, {}
    for one in datasets:
        if not isinstance(entry := info.get(one), dict):
            known = f"{did_you_mean(one, info)}; it has {', '.join(list(info)[:20])}"
            raise RecipeError(f"corpus.datasets: {uri} describes no data set `{one}`{known}")
        try:
            paths[one], sources[one] = _path(uri, entry), _source(entry)
        except ValueError as error:
            raise RecipeError(f"{uri}: {one}: {error}") from error
    return {"paths": paths, "sources": sources}


def _read(uri: str) -> dict[str, Any]:
    try:
        info = json.loads(storage.read_bytes(uri))
    except FileNotFoundError as error:
        raise RecipeError(f"corpus.dataset_info: {uri}: there is no such file") from error
    except (OSError, ValueError, RecursionError, DavirError) as error:
        raise RecipeError(f"corpus.dataset_info: {uri}: cannot be read as JSON: {error}") from error
    if not isinstance(info, dict):
        raise RecipeError(f"corpus.dataset_info: {uri}: expected an object of data sets, found {brief(info)}")
    return info


def _path(uri: str, entry: Mapping[str, Any]) -> str:
    """Return where the rows of a data set are. Raises `ValueError`."""
    if unknown := [key for key in entry if key not in KEYS]:
        raise ValueError(f"{unknown[0]}: is no key of a data set{did_you_mean(unknown[0], KEYS)}")
    for key, why in NOT_OBEYED.items():
        if entry.get(key) is not None:
            raise ValueError(f"{key}: {why.format(value=entry[key])}")
    if entry.get("split") not in (None, "train"):
        raise ValueError(f"split: found {brief(entry['split'])}; a file has the split `train` alone")
    place = entry.get("cloud_file_name") or entry.get("file_name")
    if not isinstance(place, str) or not place:
        raise ValueError(f"file_name: expected the name of a file or a folder, found {brief(place)}")
    return place if "cloud_file_name" in entry else storage.join(uri.rpartition("/")[0] or ".", place)


def _source(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a source. Raises `ValueError`."""
    formatting, ranking = entry.get("formatting", "alpaca"), entry.get("ranking", False)
    if formatting not in ("alpaca", "sharegpt", "openai"):
        raise ValueError(f"formatting: expected alpaca, sharegpt or openai, found {brief(formatting)}")
    if not isinstance(ranking, bool):
        raise ValueError(f"ranking: expected true or false, found {brief(ranking)}")
    columns = _columns(entry.get("columns"), formatting)
    missing = [side for side in SIDES if ranking and side not in columns]
    if missing:
        raise ValueError(f"columns: lack {missing[0]}, which rows with `ranking` have")
    if ranking and "kto_tag" in columns:
        raise ValueError(
            "columns: kto_tag marks single answers, and `ranking` says that there are pairs; keep one"
        )
    dropped = () if ranking else SIDES
    kept = {key: column for key, column in columns.items() if key not in dropped}
    if formatting == "alpaca":
        return _alpaca(kept, ranking)
    tags = _tags(entry.get("tags"))
    renames = _renamed(kept, SHAREGPT, SHAREGPT["messages"])
    return {"format": "preference_sharegpt" if ranking else "sharegpt", "columns": renames, **tags}


def _columns(given: Any, formatting: str) -> dict[str, str]:
    """Return its name of a column -> the column in the files; without a block, its defaults."""
    if given is None:
        return dict(ALPACA) if formatting == "alpaca" else dict(SHAREGPT)
    if not isinstance(given, dict):
        raise ValueError(f"columns: expected a mapping, found {brief(given)}")
    columns = {key: column for key, column in given.items() if column is not None}
    for key, column in columns.items():
        if key in MEDIA:
            raise ValueError(
                f"columns: {key}: images, video and audio are not supported; leave the data set out"
            )
        if key not in COLUMNS:
            raise ValueError(f"columns: {key}: is no column of a data set{did_you_mean(key, COLUMNS)}")
        if not isinstance(column, str):
            raise ValueError(f"columns: {key}: expected the name of a column, found {brief(column)}")
    return columns


def _alpaca(columns: Mapping[str, str], ranking: bool) -> dict[str, Any]:
    """Return the settings of rows in its alpaca formatting; a prompt without a response is a text to go on with."""
    if not ranking and "response" not in columns:
        if set(columns) != {"prompt"}:
            raise ValueError(
                f"columns: lack response; expected {', '.join(ALPACA)}, or prompt alone for plain text"
            )
        return {"format": "text", "columns": {"text": columns["prompt"]}}
    used = {key: column for key, column in columns.items() if not (ranking and key == "response")}
    renames = _renamed(used, ALPACA, ALPACA["prompt"])
    return {"format": "preference_alpaca" if ranking else "alpaca", "columns": renames}


def _renamed(columns: Mapping[str, str], names: Mapping[str, str], needed: str) -> dict[str, str]:
    """Return the format's name of a column -> the column in the files. Raises `ValueError` for one it does not have."""
    ours = {names.get(key, key): column for key, column in columns.items()}
    foreign = {*ALPACA, *SHAREGPT, "history"} - set(names) - ({"history"} if names is ALPACA else set())
    if wrong := [key for key in columns if key in foreign]:
        raise ValueError(f"columns: {wrong[0]}: is of the other formatting")
    if needed not in ours:
        raise ValueError(f"columns: lack {next(key for key, name in names.items() if name == needed)}")
    return ours


def _tags(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ValueError(f"tags: expected a mapping, found {brief(given)}")
    known: Sequence[str] = tuple(TagsConfig.model_fields)
    if unknown := [tag for tag in given if tag not in known]:
        raise ValueError(f"tags: {unknown[0]}: is no tag{did_you_mean(unknown[0], known)}")
    return {"tags": {tag: name for tag, name in given.items() if name is not None}}
