"""dataset_info.json beside the exports: what LLaMA-Factory has to know to train on them as they are."""

import json
from typing import Any

import pyarrow as pa

from davir_ray import storage
from davir_ray.coreset.export import CoresetFiles
from davir_ray.coreset.export_plan import Export
from davir_ray.coreset.llama_factory import data_set_name, dataset_info, own_rows, written_rows
from davir_ray.corpus.detection import settings_of
from davir_ray.corpus.formats import FORMATS, is_paired
from davir_ray.storage.layout import RunLayout


def write_dataset_info(export: Export, layout: CoresetFiles, schemas: dict[int, pa.Schema]) -> None:
    """Write for LLaMA-Factory which of the exports it reads, and how; nothing where it reads none of them.

    schemas: of the rows of each folder that has any. A format that leaves all of them out has empty files there.
    """
    entries = [
        (
            data_set_name(format, export.sources[folder]),
            _folder(format, layout.folders[folder]),
            _described(export, format, folder, schema),
        )
        for format in export.config.formats
        for folder, schema in schemas.items()
        if any(file.size for file in storage.files_in(_place(export, format, layout.folders[folder])))
    ]
    if found := dataset_info(entries):
        storage.write_atomic(RunLayout(export.run_dir).dataset_info, json.dumps(found, indent=2).encode())


def _described(export: Export, format: str, folder: int, schema: pa.Schema) -> dict[str, Any] | None:
    """Return what dataset_info.json says of a folder of an export."""
    sources = {
        split.source: export.formats[split.source]
        for split, at in zip(export.splits, export.folder_of, strict=True)
        if at == folder
    }
    if format == "llama_factory":
        return written_rows(any(map(is_paired, sources.values())))
    if format not in ("parquet", "jsonl") or len(sources) > 1:
        return None
    ((source, name),) = sources.items()
    return own_rows(name, settings_of(export.corpus, source, FORMATS[name]).columns, schema)


def _place(export: Export, format: str, source: str) -> str:
    folder = export.folder(format)
    return storage.join(folder, source) if source else folder


def _folder(format: str, source: str) -> str:
    """Name a folder of an export as it is seen from beside dataset_info.json."""
    name = f"../{RunLayout.coreset}" if format == "parquet" else format
    return f"{name}/{source}" if source else name
