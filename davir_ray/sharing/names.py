"""Names of files and models as other people may see them: without this machine's folders, and without credentials."""

from pathlib import PurePath
from typing import Any

from davir_ray.foreign_text import without_credentials


def shareable_name(name: str) -> str:
    """Return a hub id or a URI as it is, of a path its last part."""
    if "://" in name and not name.startswith("file://"):
        return without_credentials(name)
    return PurePath(name).name if name.startswith(("/", "~", ".", "file://")) else name


def shareable_tree(tree: Any) -> Any:
    """Return plain data with every path in it named so."""
    if isinstance(tree, dict):
        return {key: shareable_tree(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [shareable_tree(value) for value in tree]
    return shareable_name(tree) if isinstance(tree, str) else tree
