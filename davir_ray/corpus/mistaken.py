"""What a file is that is not what its name says, and what would make it readable."""

import json
from typing import Any

BEGINNINGS = (
    (b"PAR1", "Parquet", "call it .parquet"),
    (b"\x1f\x8b", "gzip", "call it .jsonl.gz or .json.gz"),
    (b"\x28\xb5\x2f\xfd", "zstd", "call it .jsonl.zst or .json.zst"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"ARROW1", "an Arrow file", "Dataset.from_file(...).to_parquet(...) of `datasets` converts it"),
    (b"version https://git-lfs", "a pointer of Git LFS, and the file itself is not here", "run git lfs pull"),
    (b"<", "HTML or XML", "see whether a download ended at an error page"),
)
"""First bytes -> what the file is, and what to do with it."""

BOMS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)

METADATA = {
    "dataset_info.json": "describes data sets (LLaMA-Factory's list of them, which corpus.dataset_info takes, or the "
    "metadata of `datasets`)",
    "dataset_infos.json": "is the metadata of `datasets`",
    "dataset_dict.json": "is the metadata of `datasets`",
    "state.json": "is the metadata of datasets.save_to_disk",
}
"""Names of files that lie beside rows and hold none -> what they are."""

LONGEST = 1 << 26
"""The most bytes that are read to find out what a file is."""


def metadata(path: str, head: bytes) -> str | None:
    """Return what is wrong with a file that only describes rows; None for any other."""
    name = path.rsplit("/", 1)[-1]
    if name not in METADATA or (name == "state.json" and b'"_data_files"' not in head):
        return None
    return f"{METADATA[name]}, not rows; name the files with the rows in corpus.paths, by a glob such as *.parquet"


def known_by_beginning(head: bytes) -> str | None:
    """Return what a file is by its first bytes, and what to do; None where they say nothing."""
    for beginning, what, remedy in BEGINNINGS:
        if head.startswith(beginning):
            return f"is {what}; {remedy}"
    encoding = next((name for bom, name in BOMS if head.startswith(bom)), None) or _without_bom(head)
    return None if encoding is None else f"is {encoding}, expected UTF-8; {_converted(encoding)}"


def _without_bom(head: bytes) -> str | None:
    """Recognise UTF-16 of mostly ASCII text: every second byte is zero."""
    halves = (head[0::2], head[1::2])
    zeros = any(half.count(0) > 0.6 * len(half) for half in halves)
    return "UTF-16" if len(head) >= 4 and zeros and head.count(0) < 0.7 * len(head) else None


def _converted(encoding: str) -> str:
    return f"`iconv -f {encoding} -t UTF-8 FILE > NEW_FILE` makes it that"


def not_utf8(data: bytes, error: UnicodeDecodeError) -> str:
    """Say where a text stops being UTF-8, and what it may be."""
    near = data[max(0, error.start - 10) : error.start + 5]
    return (
        f"is not UTF-8: byte 0x{data[error.start]:02x} at byte {error.start}, in {near.decode('latin-1')!a} "
        f"if it is Latin-1; {_converted('LATIN1')}"
    )


def spread_object(data: bytes) -> str | None:
    """Return what is wrong with a JSON object that is spread over several lines; None where there is none."""
    text = data.decode("utf-8-sig", "replace").lstrip()
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or "\n" not in text[:end]:
        return None
    if text[end:].strip():
        return "holds JSON objects that are spread over several lines, expected one a line; `jq -c .` makes it that"
    return (
        f"is one JSON object with the keys {', '.join(list(value)[:10])}, expected an array of rows, or a row a line"
        f"{_rows_within(value)}"
    )


def _rows_within(value: dict[str, Any]) -> str:
    """Tell which key of an object holds rows."""
    for key, rows in value.items():
        if isinstance(rows, list) and rows and isinstance(rows[0], dict):
            return (
                f"; `{key}` holds {len(rows)}: `jq -c '.[{json.dumps(key)}][]'` takes them out, a row a line"
            )
    return ""
