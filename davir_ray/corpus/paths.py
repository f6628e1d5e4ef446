"""Files, folders and globs on any fsspec URI -> the corpus files behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import has_magic
from typing import Any

from fsspec import AbstractFileSystem

from davir_ray import storage
from davir_ray.corpus.split import KINDS, Kind, kind_of
from davir_ray.errors import CorpusError

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
                if files.setdefault(file.path, file).source != source:
                    raise CorpusError(
                        f"{file.path}: belongs to two sources, {files[file.path].source} and {source}"
                    )
    return sorted(files.values())


def _matches(source: str, pattern: str) -> list[CorpusFile]:
    fs, path = storage.filesystem(pattern)
    infos = _infos(fs, path, pattern)
    files = [
        CorpusFile(source, _uri(fs, name), kind, int(info.get("size") or 0), _stamp(info))
        for name, info in infos.items()
        if (kind := kind_of(name)) is not None
    ]
    if not files:
        found = f"matches {len(infos)} files, none of them with" if infos else "matches no file with"
        raise CorpusError(
            f"corpus.paths: {pattern}: {found} a suffix of {', '.join(KINDS)} (JSON also .gz, .zst)"
        )
    return files


def _infos(fs: AbstractFileSystem, path: str, pattern: str) -> dict[str, dict[str, Any]]:
    if fs.isfile(path):
        return {path: fs.info(path)}
    if fs.isdir(path):
        found = fs.find(path, detail=True)
        return {name: info for name, info in found.items() if not _is_hidden(name.removeprefix(path))}
    if has_magic(path):
        found = fs.glob(path, detail=True)
        return {name: info for name, info in found.items() if info["type"] == "file"}
    raise CorpusError(f"corpus.paths: {pattern}: no such file or folder")


def _is_hidden(name: str) -> bool:
    """Tell whether a file or a folder above it is hidden, or a marker such as `_SUCCESS`."""
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _uri(fs: AbstractFileSystem, path: str) -> str:
    return path if storage.is_local(fs) else str(fs.unstrip_protocol(path))


def _stamp(info: dict[str, Any]) -> str:
    return next((str(info[name]) for name in STAMPS if info.get(name) is not None), "")
