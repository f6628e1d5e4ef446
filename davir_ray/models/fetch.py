"""Bring the files of a model to this machine: from a folder, the Hugging Face hub or an fsspec URI."""

import fnmatch
import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from fsspec import AbstractFileSystem

from davir_ray.errors import ModelError, ModelNotFound
from davir_ray.storage.filesystems import filesystem, reaching

NO_WEIGHTS = ("*.json", "*.jinja", "*.model", "*.txt")
WANTED = ("*.safetensors", *NO_WEIGHTS)
UNWANTED = ("*/*", "consolidated*")
"""Subfolders hold other formats; `consolidated` is Mistral's second copy of the same weights."""
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def fetch(name: str, revision: str | None, cache_dir: str | Path, wanted: tuple[str, ...] = WANTED) -> Path:
    """Return the local folder of a path, URI or hub id, downloading it if need be. Raises `ModelError`.

    wanted: patterns of the files that are downloaded.
    """
    if name.startswith("file://"):
        name = name.removeprefix("file://")
    folder = Path(name).expanduser()
    if revision and ("://" in name or folder.is_dir()):
        raise ModelError(f"{name}: is no model of the hub, where alone revision {revision} has an effect")
    if "://" in name:
        return _download(name, Path(cache_dir).expanduser(), wanted)
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise ModelError(f"{name}: is a file; expected the model's folder")
    if not HUB_ID.fullmatch(name) or name.startswith("."):
        raise ModelNotFound(f"{name}: there is no such folder")
    return _download_from_hub(name, revision, wanted)


def _download_from_hub(name: str, revision: str | None, wanted: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download  # here: whoever reads a recipe or a run would wait for it
    from huggingface_hub.errors import HFValidationError

    try:
        path = snapshot_download(
            name, revision=revision, allow_patterns=list(wanted), ignore_patterns=list(UNWANTED)
        )
    except (OSError, HFValidationError) as error:  # all errors of the hub and of the network are OSErrors
        version = f" at revision {revision}" if revision else ""
        raise ModelNotFound(
            f"{name}: is no local folder, and no such model{version} could be had from the Hugging Face hub "
            f"or its local cache: {_first_line(error)}"
        ) from error
    return Path(path)


def _download(uri: str, cache_dir: Path, wanted: tuple[str, ...]) -> Path:
    """Copy the folder behind a URI into a cache folder that is named by a hash of its listing."""
    try:
        with reaching(uri, ModelError):
            fs, root = filesystem(uri)
            files = _listing(fs, root, wanted)
            digest = hashlib.blake2b(json.dumps([uri, files]).encode(), digest_size=16).hexdigest()
            folder = cache_dir / "models" / digest
            if files and not folder.is_dir():
                _copy(fs, root, [name for name, _, _ in files], folder)
    except OSError as error:  # there is no such folder, or it is a file
        raise ModelNotFound(f"{uri}: cannot be read: {_first_line(error)}") from error
    if not files:
        raise ModelNotFound(f"{uri}: there is no model there (no {', '.join(wanted)})")
    return folder


def _listing(fs: AbstractFileSystem, root: str, wanted: tuple[str, ...]) -> list[tuple[str, int, str]]:
    """Name, size and checksum of each wanted file. The checksum is the store's own: nothing is read."""
    found = fs.ls(root, detail=True)
    files = {info["name"]: info for info in found if info["type"] == "file"}
    return [
        (name, int(files[path]["size"]), str(fs.checksum(path)))
        for path in sorted(files)
        if is_wanted(name := path.rsplit("/", 1)[-1], wanted)
    ]


def is_wanted(name: str, wanted: tuple[str, ...] = WANTED) -> bool:
    """Tell whether a file at the top of a model's folder belongs to the model as it is read here."""

    def fits(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)

    return fits(wanted) and not fits(UNWANTED)


def _copy(fs: AbstractFileSystem, root: str, names: list[str], folder: Path) -> None:
    """Copy under another name and rename at the end, so that a folder that exists is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = tempfile.mkdtemp(dir=folder.parent, prefix=".partial-")
    try:
        for name in names:
            fs.get_file(f"{root.rstrip('/')}/{name}", os.path.join(partial, name))
        os.chmod(partial, 0o755)
        os.rename(partial, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was quicker, and its copy is the same
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
