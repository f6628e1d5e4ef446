"""Each kind of damage, done to each kind of file: its reader finds what was written, or says which file is wrong."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from davir_ray import storage
from davir_ray.cli.verify_runs import verify_run
from davir_ray.config import EngineConfig, ModelsConfig
from davir_ray.corpus.split import Split
from davir_ray.drift.result import Drift
from davir_ray.errors import StoreError
from davir_ray.logprobs.choice import Choice
from davir_ray.logprobs.kinds import LOSS
from davir_ray.measure.chunks import CHUNKS
from davir_ray.measure.measurement import PLAN, Measurement
from davir_ray.measure.trial import Journal
from davir_ray.nightly.nights import Nights
from davir_ray.recipe import parse_recipe
from davir_ray.runs.lease import Lease, newest_lease, take
from davir_ray.runs.locations import read_places, write_places
from davir_ray.runs.record import RunRecord
from davir_ray.runs.run import Run, recipe_of_run
from davir_ray.schema import EXAMPLES, TOKENS, View
from davir_ray.sharing.score_table import read_score_table, write_score_table
from davir_ray.storage.sealed import read_sealed, write_sealed
from davir_ray.storage.typed import parsed
from davir_ray.store.compaction import compact
from davir_ray.store.measurements import MeasurementStore
from davir_ray.store.prepared import Prepared
from davir_ray.train.metrics import read_metrics, write_metrics
from tests.damages import DAMAGES, replaced
from tests.measured import held, keys, losses_of
from tests.records import drift, night_line, run_record
from tests.unit.sharing.test_score_table import card
from tests.unit.sharing.test_score_table import rows as table_rows

LOOSE = ("flipped", "untrue", "cut")
"""What may leave another whole value of a log."""
NAMES = "abcdefghij"


def store_in(folder: Path, name: str = "f" * 32, shift: float = 0.0) -> MeasurementStore:
    store = MeasurementStore(str(folder / "measurements" / name), LOSS)
    store.write(keys(*NAMES), losses_of(np.arange(1.0, 11.0) + shift))
    store.write_failed(f"chunk-{shift}", {keys("y")[0]: f"died {shift}"})
    store.describe(
        {"kind": "loss", "model": name, "path": "x", "adapter": None, "numerics": {"dtype": "float32"}}
    )
    return store


def prepared_in(folder: Path) -> Prepared:
    prepared = Prepared(str(folder / "prepared" / "settings"), ("one", "two"))
    for split in range(2):
        rows = [(row, keys(str(row + split))[0], None, f"s{row}", "g", "ok", None) for row in range(5)]
        tokens = [
            (row, "response", keys(str(row))[0], 1 + split, 3, [row] * 3, [False, True, True])
            for row in range(5)
        ]
        tables = [
            pa.Table.from_pylist([dict(zip(schema.names, one, strict=True)) for one in some], schema=schema)
            for some, schema in ((rows, EXAMPLES), (tokens, TOKENS))
        ]
        prepared.write(split, *tables)
    return prepared


def measurement_in(folder: Path, run: str = "n-1") -> Measurement:
    models = ModelsConfig.model_validate({"base": "b"})
    measurement = Measurement(
        model="base",
        kind=LOSS,
        fold=None,
        views=(View.RESPONSE,),
        models=models,
        engine=EngineConfig(),
        choice=Choice("hash", "float32", "cpu", "made up"),
        identity="m",
        adapted=False,
        max_length=8,
        chunk_tokens=8,
        prepared=Prepared(str(folder / "p"), ("one",)),
        stores=(MeasurementStore(str(folder / "m"), LOSS),),
        folder=str(folder / run / "work" / "base"),
    )
    asked = {b"asked": b"2"}
    chunks = pa.table([["a", "b"], [[1, 2], [3]], [7, len(run)]], schema=CHUNKS)
    planned = pa.table([[0, 0], [0, 1], ["a", "b"], [2, 1], [7, len(run)]], schema=PLAN)
    storage.write_table(measurement.plan_uri, measurement.labelled(planned.replace_schema_metadata(asked)))
    storage.write_table(measurement.chunks_uri(0), measurement.labelled(chunks))
    return measurement


def run_in(folder: Path, run_id: str = "n-000000000001") -> Run:
    tree = {"corpus": {"paths": "rows.parquet"}, "models": {"base": run_id, "reference": "r"}}
    run = Run.begin(parse_recipe(tree | {"output": str(folder), "store": str(folder)}, "r"), run_id)
    run.event("prepare", splits=len(run.events))
    prepared = Prepared(str(folder / "prepared"), ("one",))
    prepared.write(0, EXAMPLES.empty_table(), TOKENS.empty_table())
    write_places(run, prepared, [Split("s", run_id, "parquet", 0, 1, (0,))])
    storage.write_table(
        storage.join(run.folder, "scored", "0.parquet"), pa.table({"a": [run_id] * len(run_id)})
    )
    run.finish(run_record(run_id=run_id))
    return run


@dataclass
class Case:
    """A kind of file. make: makes one and returns its path. read: reads it. other: makes another one of its kind.

    logs: whether another whole value, as `LOOSE` damage makes it, does no harm: of a log, and of a plan, which is
    compared with the store again.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    other: Callable[[Path], Path] | None = None
    logs: bool = False


def measurement_case():
    def make(folder):
        return Path(store_in(folder).parts()[0].uri)

    def other(folder):
        return Path(store_in(folder, "e" * 32, 1.0).parts()[0].uri)

    return Case(
        make, lambda path: [a.tolist() for a in held(MeasurementStore(str(path.parent), LOSS))], other
    )


def merged_case():
    def make(folder, name="f" * 32, shift=0.0):
        store = store_in(folder, name, shift)
        store.write(keys("z"), losses_of(np.array([3.0 + shift])))
        compact(store)
        return Path(store.parts()[0].uri)

    def read(path):
        store = MeasurementStore(str(path.parent.parent), LOSS)
        return [*(one.tolist() for one in held(store)), sorted(store.part_names())]

    return Case(make, read, lambda folder: make(folder, "e" * 32, 1.0))


def failed_case():
    def read(path):
        return MeasurementStore(str(path.parent.parent), LOSS).failed()

    return Case(
        lambda folder: Path(store_in(folder).failed_parts()[0].uri),
        read,
        lambda folder: Path(store_in(folder, "e" * 32, 1.0).failed_parts()[0].uri),
    )


def described(path):
    store = MeasurementStore(str(path.parent), LOSS)
    store.describe(
        {"kind": "loss", "model": "f" * 32, "path": "x", "adapter": None, "numerics": {"dtype": "float32"}}
    )
    found = json.loads(path.read_text())
    return found["model"], found["numerics"]


def described_case():
    return Case(
        lambda folder: Path(store_in(folder).folder) / "model.json",
        described,
        lambda folder: Path(store_in(folder, "e" * 32).folder) / "model.json",
    )


def prepared_case(table):
    def read(path):
        prepared = Prepared(str(path.parent.parent), ("one", "two"))
        rows = prepared.examples(0) if table == "examples" else prepared.tokens(0)
        counts = prepared.count_rows() if table == "examples" else prepared.count_sequences()
        picked = prepared.token_rows(0, [4, 0]).to_pylist() if table == "tokens" else None
        return rows.to_pylist(), counts[0], picked

    return Case(
        lambda folder: Path(prepared_in(folder).uri(table, 0)),
        read,
        lambda folder: Path(prepared_in(folder).uri(table, 1)),
    )


def work_case(uri, read, logs):
    def make(folder, run="n-1"):
        return Path(uri(measurement_in(folder, run)))

    return Case(make, read, lambda folder: make(folder, "n-22"), logs)


def pass_at(path: Path, depth: int) -> Measurement:
    """The pass whose files lie there, without writing any."""
    folder = path.parents[depth]
    return replace(measurement_in(folder / "elsewhere"), folder=str(folder / "n-1" / "work" / "base"))


def read_plan(path):
    found = pass_at(path, 3).read_work(str(path), PLAN)
    return found.to_pylist(), found.schema.metadata[b"asked"]


def read_chunks(path):
    return pass_at(path, 4).read_work(str(path), CHUNKS).to_pylist()


def journal_case():
    def make(folder, size=5):
        journal = Journal.open(str(folder / "journal" / f"{size}.json"), size)
        journal.next()
        journal.blame((0, size), "died")
        journal.next()
        return Path(journal.uri)

    def read(path):
        found = Journal.open(str(path), 5)
        return None if not found.again else (found.pending, found.failed, found.deaths_in_all)

    return Case(make, read)


def lease_case():
    def read(path):
        found = newest_lease(str(path.parent))
        if found is None or found[1].released or found[1].id == "":
            assert isinstance(take(str(path.parent)), Lease)
            return None
        return "held"

    def make(folder):
        lease = take(str(folder / "lease"))
        return Path(lease.folder) / f"{lease.number:08d}.json"

    return Case(make, read)


def run_case(name, read, other="n-0000000000022", logs=False):
    def make(folder, run_id="n-000000000001"):
        return Path(storage.join(run_in(folder, run_id).folder, name))

    return Case(make, read, None if logs else lambda folder: make(folder, other), logs)


def nights_case():
    def make(folder):
        nights = Nights(str(folder / "nightly" / "n"))
        for rows in range(3):
            nights.add(night_line(rows=rows))
        return Path(nights.uri)

    return Case(make, lambda path: [one.run_id for one in Nights(str(path.parent)).read()], logs=True)


def metrics_case():
    def make(folder):
        write_metrics(str(folder), [{"max_steps": 9, "step": step, "loss": 0.5} for step in range(3)])
        return folder / "metrics.jsonl"

    return Case(make, lambda path: [one["step"] for one in read_metrics(str(path.parent))], logs=True)


def drift_case():
    def make(folder, before="n-1"):
        uri = str(folder / f"{before}-drift.json")
        write_sealed(uri, drift(before=before).tree())
        return Path(uri)

    return Case(make, lambda path: parsed(Drift, read_sealed(str(path)), str(path)))


def events_of(path):
    run = Run.from_folder(str(path.parent))
    run.read_events()
    return [one["event"] for one in run.events] or None


def record_of(path):
    return Run.from_folder(str(path.parents[0])).record(RunRecord)


def score_table_case():
    def make(folder):
        write_score_table(str(folder / "t.parquet"), card(), table_rows())
        return folder / "t.parquet"

    def read(path):
        path.stat()  # a table that is gone is a mistake of usage
        found, rows = read_score_table(str(path))
        return [found.run_id, rows.to_pylist()]

    return Case(make, read)


CASES = {
    "measurement": measurement_case(),
    "merged": merged_case(),
    "failed": failed_case(),
    "model.json": described_case(),
    "examples": prepared_case("examples"),
    "tokens": prepared_case("tokens"),
    "plan": work_case(lambda one: one.plan_uri, read_plan, logs=True),
    "chunks": work_case(lambda one: one.chunks_uri(0), read_chunks, logs=True),
    "journal": journal_case(),
    "lease": lease_case(),
    "recipe": run_case("recipe.json", lambda path: recipe_of_run(str(path.parent))["score"], logs=True),
    "record": run_case("record.json", record_of),
    "scored": run_case("scored/0.parquet", lambda path: record_of(path.parent)),
    "events": run_case("events.jsonl", events_of, logs=True),
    "places": run_case("places.json", lambda path: read_places(str(path.parent))),
    "nights": nights_case(),
    "metrics": metrics_case(),
    "drift": drift_case(),
    "score table": score_table_case(),
}


def unknown(value: Any) -> bool:
    """Tell whether a reader says that it does not know any more: it is measured, or made, again."""
    return value is None or value in ({}, []) or (isinstance(value, list) and not any(value))


def outcome(case: Case, path: Path) -> Any:
    """Read a damaged file: what was found, or None if the reader named the file as damaged, or as one that is gone."""
    try:
        return case.read(path)
    except FileNotFoundError:
        assert not path.exists()
    except StoreError as damage:
        if str(path) not in str(damage):
            raise
    return None


def restore(files: dict[Path, bytes], folder: Path) -> None:
    """Put a folder back to what it was."""
    for path in folder.iterdir():
        if path.is_file() and path not in files:
            path.unlink()
    for path, data in files.items():
        path.write_bytes(data)


def check_damage(tmp_path: Path, name: str, damage: str, draws: int) -> None:
    case, draw = CASES[name], random.Random(f"{name} {damage}")
    path = case.make(tmp_path)
    files = {one: one.read_bytes() for one in path.parent.iterdir() if one.is_file()}
    whole = case.read(path)
    assert not unknown(whole)
    for _ in range(draws if damage in ("cut", "garbage", "flipped", "untrue") else 1):
        restore(files, path.parent)
        DAMAGES[damage](path, draw)
        found = outcome(case, path)
        assert (case.logs and damage in LOOSE) or unknown(found) or found == whole


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", CASES)
def test_damage_is_seen_or_does_nothing(tmp_path, name, damage):
    check_damage(tmp_path, name, damage, draws=4)


@pytest.mark.nightly
@pytest.mark.parametrize("damage", ["cut", "garbage", "flipped", "untrue"])
@pytest.mark.parametrize("name", CASES)
def test_much_damage_is_seen_or_does_nothing(tmp_path, name, damage):
    check_damage(tmp_path, name, damage, draws=400)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.other])
def test_another_file_of_the_same_kind_in_its_place_is_seen(tmp_path, name):
    case = CASES[name]
    path, other = case.make(tmp_path), case.other(tmp_path / "other")
    whole = case.read(path)
    assert path.read_bytes() != other.read_bytes(), "the other file is no other"
    replaced(path, other)
    found = outcome(case, path)
    assert unknown(found) or (name == "model.json" and found == whole)


@pytest.mark.parametrize("given", [".", "../latest", "../n-000000000001/"])
def test_verify_finds_a_sound_run_sound_by_whatever_path(tmp_path, monkeypatch, given):
    run = run_in(tmp_path)
    (tmp_path / "latest").symlink_to(run.run_id)
    monkeypatch.chdir(run.folder)
    assert list(verify_run(given)) == []
    Path(storage.join(run.folder, "places.json")).write_text("{}")
    assert [one.uri for one in verify_run(given)] == [storage.join(run.folder, "places.json")]


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "gone"])
@pytest.mark.parametrize("name", ["record.json", "scored/0.parquet", "recipe.json", "places.json"])
def test_verify_sees_damage_in_a_run(tmp_path, name, damage):
    run = run_in(tmp_path)
    assert list(verify_run(run.folder)) == []
    path = Path(storage.join(run.folder, name))
    before = path.read_bytes()
    DAMAGES[damage](path, random.Random(f"{name} {damage}"))
    found = {one.uri for one in verify_run(run.folder)}
    same = path.read_bytes() == before or (name == "recipe.json" and damage in ("flipped", "untrue"))
    assert same or found == {str(path)}
