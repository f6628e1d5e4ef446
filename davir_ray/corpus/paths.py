"""Files, folders and globs on any fsspec URI -> the corpus files behind them."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import has_magic
from itertools import islice
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.utils import glob_translate

from davir_ray import storage
from davir_ray.corpus.split import KINDS, Kind, kind_of
from davir_ray.errors import CorpusError
from davir_ray.foreign_text import is_text
from davir_ray.storage.filesystems import filesystem, reaching

STAMPS = ("ETag", "etag", "md5Hash", "checksum", "mtime", "LastModified", "last_modified", "created")
"""What filesystems call the mark of a file's content, the surest first."""


@dataclass(frozen=True, order=True)
class CorpusFile:
    """A file of the corpus. `stamp` changes when the content does, as far as the filesystem says."""

    source: str
    path: str
    kind: Kind
    size: int
    stamp: str


def expand(paths: Mapping[str, Sequence[str]]) -> list[CorpusFile]:
    """List all files by source and path, each once. Raises `CorpusError` for a path that matches none."""
    files: dict[str, CorpusFile] = {}
    for source, patterns in paths.items():
        for pattern in patterns:
            for file in _matches(source, pattern):
                if not is_text(file.path):
                    raise CorpusError(
                        f"{file.path}: its name is not UTF-8, and tables cannot hold it; rename the file"
                    )
                if files.setdefault(file.path, file).source != source:
                    raise CorpusError(
                        f"{file.path}: belongs to two sources, {files[file.path].source} and {source}"
                    )
    return sorted(files.values())


def _matches(source: str, pattern: str) -> list[CorpusFile]:
    with _from_hub(pattern), reaching(pattern, CorpusError):
        fs, path = filesystem(pattern)
        infos = _infos(fs, path, pattern)
        infos = infos if path in infos else _rows_saved(fs, infos, pattern)
    files = [
        CorpusFile(source, _uri(fs, name), kind, int(info.get("size") or 0), _stamp(info))
        for name, info in infos.items()
        if (kind := kind_of(name)) is not None
    ]
    if not files:
        names = ", ".join(name.rsplit("/", 1)[-1] for name in islice(infos, 3))
        found = (
            f"matches {len(infos)} files ({names}), none of them with" if infos else "matches no file with"
        )
        raise CorpusError(
            f"corpus.paths: {pattern}: {found} a suffix of {', '.join(KINDS)} (JSON and CSV also .gz, .zst)"
        )
    return files


@contextmanager
def _from_hub(pattern: str) -> Iterator[None]:
    """Say how else rows of the Hugging Face hub are had, where it cannot be reached."""
    try:
        yield
    except CorpusError as error:
        named = re.match(r"hf://datasets/([\w.-]+/[\w.-]+)", pattern)
        if named is None:
            raise
        raise CorpusError(
            f"{error}; where the hub is reached, `hf download {named[1]} --repo-type dataset --local-dir data` fetches "
            "its files, and corpus.paths takes them from there (a gated one asks for `hf auth login`)"
        ) from error


def _infos(fs: AbstractFileSystem, path: str, pattern: str) -> dict[str, dict[str, Any]]:
    if fs.isfile(path):
        return {path: fs.info(path)}
    if fs.isdir(path):
        found = fs.find(path, detail=True)
        return {name: info for name, info in found.items() if not _is_hidden(name.removeprefix(path))}
    if has_magic(path):
        return _glob(fs, path)
    try:  # for its error: to `isfile`, whatever goes wrong is a file that is not there
        return {path: fs.info(path)}
    except FileNotFoundError:
        raise CorpusError(f"corpus.paths: {pattern}: no such file or folder{_hub_id(pattern)}") from None


def _rows_saved(fs: AbstractFileSystem, infos: dict[str, Any], pattern: str) -> dict[str, Any]:
    """Leave out of what datasets.save_to_disk wrote all but the rows: its metadata, and the cache that came later.

    Raises `CorpusError` where a folder has several splits, or lacks a file that it should have.
    """
    folders = sorted({_folder(name) for name in infos if name.endswith(".arrow")})
    if not folders:
        return infos
    above = [_folder(name) for name in infos if name.endswith("/dataset_dict.json")]
    splits = [folder for folder in folders if _folder(folder) in above]
    if len(splits) > 1:
        raise CorpusError(
            f"corpus.paths: {pattern}: holds the splits {', '.join(one.rsplit('/', 1)[-1] for one in splits)} of "
            f"datasets.save_to_disk; name the folder of the one to take, such as {splits[0]}"
        )
    saved = {folder: _data_files(fs, folder) for folder in folders}
    for folder, names in saved.items():
        if missing := [name for name in names or () if not fs.exists(f"{folder}/{name}")]:
            raise CorpusError(
                f"corpus.paths: {pattern}: {folder} lacks {missing[0]}, which its state.json names"
            )
    return {name: info for name, info in infos.items() if _is_rows(name, saved, above)}


def _is_rows(name: str, saved: Mapping[str, Sequence[str] | None], above: Sequence[str]) -> bool:
    folder, file = _folder(name), name.rsplit("/", 1)[-1]
    if folder in above and file == "dataset_dict.json":
        return False
    names = saved.get(folder)
    return names is None or file in names


def _data_files(fs: AbstractFileSystem, folder: str) -> list[str] | None:
    """Name the files of rows of a folder that datasets.save_to_disk wrote; None for another folder."""
    try:
        state = json.loads(fs.cat_file(f"{folder}/state.json"))
        return [str(one["filename"]) for one in state["_data_files"]]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _hub_id(pattern: str) -> str:
    """Say what to do about a path that is a data set's name on the Hugging Face hub; empty where it cannot be one."""
    name = os.path.relpath(pattern) if "://" not in pattern else ""
    if not re.fullmatch(r"[\w.-]*\w/[\w.-]*\w", name) or kind_of(name) or os.path.exists(name.split("/")[0]):
        return ""
    return (
        f"; `{name}` looks like the id of a data set on the Hugging Face hub, which has to be here: "
        f"`hf download {name} --repo-type dataset --local-dir data` fetches its files, and "
        f"hf://datasets/{name}/**/*.parquet reads them from there"
    )


def _glob(fs: AbstractFileSystem, pattern: str) -> dict[str, dict[str, Any]]:
    """Find the files that a pattern matches. `fs.glob` would leave out a folder whose listing fails."""
    start = re.split(r"[*?\[]", pattern)[0].rfind("/") + 1
    if "**" not in pattern:
        return dict(_level(fs, pattern[:start], pattern[start:].split("/")))
    fits = re.compile(glob_translate(pattern))
    return {name: info for name, info in fs.find(pattern[:start], detail=True).items() if fits.match(name)}


def _level(fs: AbstractFileSystem, folder: str, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Find the files under a folder whose path fits these patterns, one a level."""
    fits = re.compile(glob_translate(names[0]))
    for info in _listed(fs, folder):
        path = info["name"].rstrip("/")
        is_itself = path == folder.rstrip("/")  # as the marker of a folder
        if is_itself or not fits.match(path.rsplit("/", 1)[-1]):
            continue
        if len(names) > 1 and info["type"] == "directory":
            yield from _level(fs, path, names[1:])
        elif len(names) == 1 and info["type"] == "file":
            yield path, info


def _listed(fs: AbstractFileSystem, folder: str) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = fs.ls(folder, detail=True)
    except FileNotFoundError:
        return []
    return found


def _is_hidden(name: str) -> bool:
    """Tell whether a file or a folder above it is hidden, or a marker such as `_SUCCESS`."""
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _uri(fs: AbstractFileSystem, path: str) -> str:
    return path if storage.is_local(fs) else str(fs.unstrip_protocol(path))


def _stamp(info: dict[str, Any]) -> str:
    return next((str(info[name]) for name in STAMPS if info.get(name) is not None), "")
