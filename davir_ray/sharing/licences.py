"""Under which licence the rows of a corpus stand: what the data set's own card says, and its LICENSE file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import yaml
from huggingface_hub import HfApi

from davir_ray import storage
from davir_ray.errors import RecipeError
from davir_ray.sharing.reaching_hub import reaching_hub

LICENSE_FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt")
CARD = "README.md"
HEADER = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
"""The YAML with which the card of a data set begins."""
ON_HUB = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)")


@dataclass(frozen=True)
class Licence:
    """What is known of a source. names: as the hub spells them. text: of its LICENSE file, if there is one."""

    names: tuple[str, ...]
    text: bytes | None = None


def licence_of(source: str, paths: Sequence[str]) -> Licence:
    """Find the licence of a source by the cards beside its files. Raises `RecipeError` where none says it."""
    found = [_licence_at(path) for path in paths]
    if not all(one.names for one in found):
        path = next(path for path, one in zip(paths, found, strict=True) if not one.names)
        raise RecipeError(
            f"source `{source}`: {path}: the licence of these rows is not known: there is no {CARD} beside them with "
            "`license:` in its YAML header; find it out, and say it with --license (such as apache-2.0, or unknown)"
        )
    names = tuple(dict.fromkeys(name for one in found for name in one.names))
    return Licence(names, next((one.text for one in found if one.text is not None), None))


def _licence_at(path: str) -> Licence:
    if (named := ON_HUB.match(path)) is not None:
        with reaching_hub(named[1]):
            card = HfApi().dataset_info(named[1]).card_data
        return Licence(_names(card.license if card is not None else None))
    folder = re.split(r"[*?\[]", storage.absolute(path))[0].rstrip("/")
    for _ in range(2):  # the rows may lie in a folder of their own, such as data/
        folder = folder if _is_folder(folder) else folder.rpartition("/")[0]
        if names := _names_in_card(storage.join(folder, CARD)):
            return Licence(names, _text(folder))
        folder = folder.rpartition("/")[0]
    return Licence(())


def _is_folder(place: str) -> bool:
    return bool(storage.list_files(place) or storage.list_folders(place))


def _names_in_card(uri: str) -> tuple[str, ...]:
    if (
        not storage.exists(uri)
        or (header := HEADER.match(storage.read_bytes(uri).decode(errors="replace"))) is None
    ):
        return ()
    try:
        tree = yaml.safe_load(header[1])
    except yaml.YAMLError:
        return ()
    return _names(tree.get("license") if isinstance(tree, dict) else None)


def _names(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(one for one in values if isinstance(one, str) and re.fullmatch(r"[\w.+-]+", one))


def _text(folder: str) -> bytes | None:
    for name in LICENSE_FILES:
        if storage.exists(uri := storage.join(folder, name)):
            return storage.read_bytes(uri)
    return None
