"""Write docs/records.md and docs/schemas/ from the models of what a run leaves behind.

    .venv/bin/python docs/records.py        (or: make schemas)

They are committed; tests/unit/docs/test_records.py holds that they are what this program writes.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent)]

from davir_ray.cli.status import Statuses  # noqa: E402
from davir_ray.drift.result import Drift  # noqa: E402
from davir_ray.nightly.nights import NightLine, NightRecord  # noqa: E402
from davir_ray.planning.plan import RunPlan  # noqa: E402
from davir_ray.recipe.json_schema import recipe_schema  # noqa: E402
from davir_ray.runs.events import ANY_EVENT  # noqa: E402
from davir_ray.runs.record import JobRecord, ReferenceRecord, RunRecord, TrainingRecord  # noqa: E402
from davir_ray.storage.sealed import SEAL  # noqa: E402
from davir_ray.storage.typed import VERSION, Written  # noqa: E402

HEAD = """\
<!-- Made by docs/records.py from the code: change it there. -->

# Records

What a run leaves behind as JSON, and what `--json` prints, field by field. Each kind has a JSON schema (draft 2020-12).
A reader refuses a file of another `schema_version`, and one with fields that are not listed here.

From Python:

```python
from davir_ray.runs.record import load_record, load_training

record = load_record("runs/alpaca-0123456789ab")
print(record.selected, "of", record.rows, "rows; the core-set is in", record.coreset["parquet"])
```

`load_record` raises `FileNotFoundError` while a run is not finished, and `DamagedPart`, a line with the file, the field
and what was expected there, for a record that does not fit.
"""
EVENTS_HEAD = """\
## Events

`events.jsonl` of a run or of a training has a line for each thing that happened, the latest last. It is written as a
whole: whoever reads it while the run works finds whole lines. Each has `time` (seconds since 1970), `event`, and what
is listed here. Nothing of a result depends on events. What `progress` counts, [Prometheus](cluster.md#metrics) has by
the same names. Schema: [event.json](schemas/event.json).
"""
DRAFT = "https://json-schema.org/draft/2020-12/schema"
SEALED = {
    "type": "string",
    "title": "Seal",
    "description": "Hash of all other fields and of the file's name.",
}


@dataclass(frozen=True)
class Kind:
    """A kind of JSON. extends: the model whose fields it has, too. sealed: whether the file has a seal."""

    title: str
    name: str
    model: type[Written]
    where: str
    extends: str | None = None
    sealed: bool = False


KINDS = (
    Kind(
        "Record of a run",
        "run",
        RunRecord,
        "`record.json` of a run; `davir score`, `davir select`, `davir resume`",
        sealed=True,
    ),
    Kind(
        "Record of a training",
        "training",
        TrainingRecord,
        "`record.json` of a training; `davir train`",
        sealed=True,
    ),
    Kind("Record of a reference", "reference", ReferenceRecord, "`davir reference`"),
    Kind("Record of a whole job", "job", JobRecord, "`davir run`", extends="Record of a run"),
    Kind("Record of a night", "night", NightRecord, "`davir nightly`", extends="Record of a whole job"),
    Kind("Line of a night", "night_line", NightLine, "a line of `nightly/<name>/nights.jsonl`"),
    Kind("Drift", "drift", Drift, "`drift.json` of a night's run", sealed=True),
    Kind("Plan", "plan", RunPlan, "`davir plan`, `davir score --dry-run`"),
    Kind("Status", "status", Statuses, "`davir status`"),
)
WORDS = {
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "integer": "integer",
    "number": "number",
}


def schema_of(kind: Kind) -> dict[str, Any]:
    """Return the JSON schema of a kind."""
    schema = kind.model.model_json_schema(by_alias=True)
    if VERSION in schema["properties"]:
        schema["required"] = [VERSION, *schema["required"]]
    if kind.sealed:
        schema["properties"][SEAL] = SEALED
    return {"$schema": DRAFT, **schema}


def files() -> dict[str, str]:
    """Return the text of each file by its name below docs/."""
    schemas = {kind: schema_of(kind) for kind in KINDS}
    named = {kind.name: schema for kind, schema in schemas.items()} | {"event": event_schema()}
    made = {f"schemas/{name}.json": json.dumps(one, indent=2) + "\n" for name, one in named.items()}
    made["schemas/recipe.schema.json"] = json.dumps(recipe_schema(), indent=2) + "\n"
    return made | {"records.md": "\n".join([HEAD, *page(schemas)]) + "\n"}


def event_schema() -> dict[str, Any]:
    """Return the JSON schema of an event."""
    return {"$schema": DRAFT, **ANY_EVENT.json_schema(by_alias=True)}


def events() -> Iterator[str]:
    """Yield the events of a run, a table each."""
    yield from [*EVENTS_HEAD.splitlines(), ""]
    schema = event_schema()
    for reference in schema["oneOf"]:
        kind = schema["$defs"][reference["$ref"].rsplit("/", 1)[-1]]
        name = kind["properties"]["event"]["const"]
        fields = {field: one for field, one in kind["properties"].items() if field not in ("event", "time")}
        yield from [f"### `{name}`", "", kind["description"], "", *table(fields)]


def page(schemas: dict[Kind, dict[str, Any]]) -> Iterator[str]:
    """Yield the kinds, then the parts that they are made of."""
    parts: dict[str, Any] = {}
    for kind, schema in schemas.items():
        yield from section(kind, schema)
        parts |= schema.get("$defs", {})
    yield from events()
    titles = {kind.model.__name__ for kind in KINDS}
    yield from ["## Parts", ""]
    for name, part in sorted(parts.items()):
        if name not in titles:
            yield from [f"### {name}", "", part["description"], "", *table(part["properties"])]


def section(kind: Kind, schema: dict[str, Any]) -> Iterator[str]:
    """Yield what there is to know of a kind; fields of the one that it extends are not told again."""
    yield from [f"## {kind.title}", ""]
    yield f"In {kind.where}. Schema: [{kind.name}.json](schemas/{kind.name}.json)."
    yield from ["", schema["description"], ""]
    known: set[str] = set()
    if kind.extends is not None:
        known = set(next(one for one in KINDS if one.title == kind.extends).model.model_fields)
        yield from [f"It has all fields of the [{kind.extends.lower()}](#{anchor(kind.extends)}), and:", ""]
    yield from table({name: one for name, one in schema["properties"].items() if name not in known})


def table(fields: dict[str, Any]) -> Iterator[str]:
    """Yield a table of fields, and an empty line."""
    yield from ["| field | type | meaning |", "| --- | --- | --- |"]
    for name, field in fields.items():
        yield f"| `{name}` | {type_of(field)} | {' '.join(field['description'].split())} |"
    yield ""


def type_of(field: dict[str, Any]) -> str:
    """Say in words what a field holds."""
    if "$ref" in field:
        return linked(field["$ref"].rsplit("/", 1)[-1])
    if "anyOf" in field:
        return " or ".join(type_of(one) for one in field["anyOf"])
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        return f"list of {type_of(field['items'])}"
    if field.get("additionalProperties") is True:
        return "mapping"
    if field["type"] == "object":
        return f"mapping of text to {type_of(field['additionalProperties'])}"
    return WORDS[field["type"]]


def linked(name: str) -> str:
    """Link to a kind or a part by the name of its model."""
    titles = {kind.model.__name__: kind.title for kind in KINDS}
    if name in titles:
        return f"[{titles[name].lower()}](#{anchor(titles[name])})"
    return f"[{name}](#{anchor(name)})"


def anchor(title: str) -> str:
    """Return the anchor of a heading."""
    return title.lower().replace(" ", "-")


def main() -> None:
    """Write all files."""
    for name, text in files().items():
        (DOCS / name).parent.mkdir(exist_ok=True)
        (DOCS / name).write_text(text)


if __name__ == "__main__":
    main()
