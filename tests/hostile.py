"""A corpus of `messages` rows in which nearly everything that goes wrong with corpora goes wrong once.

`write_hostile_corpus` says, for each file, whether it can be read and how each row ends before tokenisation.
Of the three rows named `duplicate` one stands for all; `over-long` and `huge` do not fit into 2,048 tokens.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from davir_ray.schema import Status

LONG_WORDS = 4_000
HUGE_BYTES = 2_000_000


@dataclass(frozen=True)
class HostileRow:
    """A row, what is the matter with it, and its status before tokenisation and before repeats are found."""

    what: str
    status: str


@dataclass(frozen=True)
class HostileFile:
    """A file of the corpus. `rows` is None where the file cannot be read; `says` is part of the reason."""

    path: str
    rows: tuple[HostileRow, ...] | None
    says: str = ""


def chat(question: str, answer: str | None, **extra: Any) -> list[dict[str, Any]]:
    """Return a conversation; without an answer it is a prompt only."""
    turns = [{"role": "user", "content": question}]
    return turns if answer is None else [*turns, {"role": "assistant", "content": answer, **extra}]


GOOD, EMPTY, BAD_FORMAT = Status.OK, Status.EMPTY, Status.BAD_FORMAT
UNANSWERED, BAD_TEXT = Status.NO_RESPONSE_TOKENS, Status.BAD_TEXT

PLAIN = [
    (HostileRow("good", GOOD), chat("What is 2 + 2?", "2 + 2 is 4.")),
    (HostileRow("empty answer", EMPTY), chat("What is 3 + 3?", "")),
    (HostileRow("blank answer", EMPTY), chat("What is 4 + 4?", " \n\t ")),
    (HostileRow("null conversation", EMPTY), None),
    (HostileRow("no turns", UNANSWERED), []),
    (HostileRow("prompt only", UNANSWERED), chat("Is anybody there?", None)),
    (HostileRow("no assistant turn", UNANSWERED), [{"role": "system", "content": "Be brief."}]),
    (HostileRow("unknown role", BAD_FORMAT), [{"role": "narrator", "content": "It was dark."}]),
    (HostileRow("null role", BAD_FORMAT), [{"role": None, "content": "Who says so?"}]),
    (HostileRow("null turn", BAD_FORMAT), [None]),
    (
        HostileRow("control characters", GOOD),
        chat("Echo \x00\x07\x1b[31m.", "\x00\x01\x7f\u200b\ufeff\u202e"),
    ),
    (HostileRow("over-long", GOOD), chat("Repeat.", "word " * LONG_WORDS)),
    (HostileRow("huge", GOOD), chat("Say a.", "a" * HUGE_BYTES)),
    (HostileRow("duplicate", GOOD), chat("Same question?", "Same answer.")),
    (HostileRow("duplicate", GOOD), chat("Same question?", "Same answer.")),
]

NESTED = [
    (HostileRow("deeper turns", GOOD), chat("Nested?", "Yes, nested.", name="bot", meta={"weight": 1.5})),
    (HostileRow("no answer", UNANSWERED), chat("Nested and alone?", None)),
    (HostileRow("duplicate, nested", GOOD), chat("Same question?", "Same answer.")),
]

LINES = [
    (HostileRow("good", GOOD), {"messages": chat("Lines?", "Yes, lines.")}),
    (HostileRow("text instead of a list", BAD_FORMAT), {"messages": "hello"}),
    (HostileRow("number instead of a list", BAD_FORMAT), {"messages": 7}),
    (HostileRow("number as the content", BAD_FORMAT), {"messages": [{"role": "assistant", "content": 5}]}),
    (HostileRow("list in a list", BAD_FORMAT), {"messages": [["user", "hello"]]}),
    (HostileRow("missing column", EMPTY), {"other": 1}),
    (HostileRow("unpaired surrogate", BAD_TEXT), {"messages": chat("Half a pair?", "\ud83d alone")}),
    (HostileRow("lone low surrogate", BAD_TEXT), {"messages": chat("\udc00", "No.")}),
    (
        HostileRow("surrogate in another column", GOOD),
        {"messages": chat("Elsewhere?", "Yes."), "note": "\ud800"},
    ),
]

RAW_LINES = [
    (HostileRow("not JSON", BAD_FORMAT), b'{"messages": [{"role"'),
    (HostileRow("not an object", BAD_FORMAT), b"[1, 2, 3]"),
    (HostileRow("JSON null", BAD_FORMAT), b"null"),
    (HostileRow("not UTF-8", BAD_TEXT), b'{"messages": "\xff\xfe"}'),
    (HostileRow("too deep", BAD_FORMAT), b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
]


def write_hostile_corpus(folder: str | Path) -> list[HostileFile]:
    """Write the corpus; return what to expect of each file, in the order of their names."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    return [
        _plain(root / "a-plain.parquet"),
        _nested(root / "b-nested.parquet"),
        _wrong_type(root / "c-wrong-type.parquet"),
        _lines(root / "d-lines.jsonl"),
        _truncated(root / "e-truncated.parquet"),
        _bytes(root / "f-zero.parquet", b"", "is empty (0 bytes)"),
        _bytes(root / "g-text.parquet", b"this is no Parquet file\n" * 20, "is not Parquet"),
        _bytes(root / "h-zero.jsonl", b"", "is empty"),
    ]


def _plain(path: Path) -> HostileFile:
    rows = [{"messages": turns, "note": row.what} for row, turns in PLAIN]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)
    return HostileFile(str(path), tuple(row for row, _ in PLAIN))


def _nested(path: Path) -> HostileFile:
    rows = [{"meta": {"task": "t", "tags": [1, 2]}, "note": 3, "messages": turns} for _, turns in NESTED]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return HostileFile(str(path), tuple(row for row, _ in NESTED))


def _wrong_type(path: Path) -> HostileFile:
    pq.write_table(pa.table({"messages": ["a", None], "meta": ["text", "text"]}), path)
    return HostileFile(str(path), (HostileRow("text column", BAD_FORMAT), HostileRow("null", EMPTY)))


def _lines(path: Path) -> HostileFile:
    lines = [json.dumps(record).encode("ascii") for _, record in LINES] + [line for _, line in RAW_LINES]
    path.write_bytes(b"\n\n".join(lines) + b"\n")
    return HostileFile(str(path), tuple(row for row, _ in [*LINES, *RAW_LINES]))


def _truncated(path: Path) -> HostileFile:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"messages": [chat("Cut?", "Off.")] * 100}), sink)
    data = sink.getvalue().to_pybytes()
    return _bytes(path, data[: len(data) // 2], "is cut off")


def _bytes(path: Path, data: bytes, says: str) -> HostileFile:
    path.write_bytes(data)
    return HostileFile(str(path), None, says)
