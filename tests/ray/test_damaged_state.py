"""Files of a run and of its store are damaged between two starts: the next one ends with the bytes of a calm run."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
import ray

from davir_ray import pipeline
from davir_ray.cli.store_lines import verify_lines
from davir_ray.errors import StoreError
from davir_ray.logprobs.kinds import LOSS
from davir_ray.recipe import Recipe
from davir_ray.runs.record import RunRecord
from davir_ray.runs.run import Run
from davir_ray.storage.files import TEMPORARY
from davir_ray.store.compaction import compact
from davir_ray.store.measurements import MeasurementStore
from tests import nights
from tests.damages import DAMAGES, replaced
from tests.ray.kill_rounds import command_of, environment, write_corpus

ROOT = Path(__file__).resolve().parents[2]
WORK = {
    "recipe": "runs/test-*/recipe.json",
    "events": "runs/test-*/events.jsonl",
    "places": "runs/test-*/places.json",
    "lease": "runs/test-*/lease/*.json",
    "plan": "runs/test-*/work/*/plan.parquet",
    "chunks": "runs/test-*/work/*/chunks/*.parquet",
    "model.json": "store/measurements/*/model.json",
    "measurement": "store/measurements/*/[0-9a-f]*.parquet",
    "merged": "store/measurements/*/merged/*.parquet",
    "examples": "store/prepared/*/examples/*.parquet",
    "tokens": "store/prepared/*/tokens/*.parquet",
    "used": "store/prepared/*/used/*.txt",
    "last use": "store/measurements/*/last-use.txt",
}
"""What an unfinished run goes on from."""
RESULTS = {
    "record": "runs/test-*/record.json",
    "scored": "runs/test-*/scored/*.parquet",
    "core-set": "runs/test-*/coreset/*/*.parquet",
    "unscored": "runs/test-*/unscored/*.jsonl",
}
"""What a finished run has made."""
pytestmark = pytest.mark.ray


class Place:
    """A run that is finished but for its tidying up, and a copy of all its files."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Run, "tidy", lambda self: None)
            self.record = self.start()
        compact(MeasurementStore(self.record.measurements["reference"], LOSS))
        for name in ("store", "runs"):
            shutil.copytree(folder / name, folder / "copy" / name)
        self.calm = self.tables()

    def start(self) -> RunRecord:
        return pipeline.score(self.recipe, "test")

    def tables(self) -> dict[str, bytes]:
        run = Path(self.record.run_dir)
        files = [file for name in ("scored", "coreset", "unscored") for file in (run / name).rglob("*")]
        return {
            str(file.relative_to(run)): file.read_bytes()
            for file in files
            if file.is_file() and file.suffix != ".damaged" and not file.name.startswith(TEMPORARY)
        }

    def restore(self, *, finished: bool) -> None:
        for name in ("store", "runs"):
            shutil.rmtree(self.folder / name)
            shutil.copytree(self.folder / "copy" / name, self.folder / name)
        run = Path(self.record.run_dir)
        if finished:
            shutil.rmtree(run / "work")  # as tidying up leaves it
        else:
            (run / "record.json").unlink()

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.folder.glob(pattern))


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_models, ray_cluster) -> Place:
    folder = tmp_path_factory.mktemp("damaged")
    nights.write(folder / "corpus", "a", [*nights.rows(0, 12), {"question": "Why?", "answer": ""}])
    nights.write(folder / "corpus", "b", nights.rows(12, 20))
    return Place(folder, nights.recipe(folder, tiny_models))


def test_a_run_with_many_damaged_files_goes_on_to_the_same_bytes(place, capfd):
    place.restore(finished=False)
    draw = random.Random(0)
    struck = {
        "recipe": "garbage",
        "events": "cut",
        "places": "empty",
        "lease": "garbage",
        "plan": "flipped",
        "model.json": "foreign",
        "measurement": "untrue",
        "merged": "cut",
    }
    for name, damage in struck.items():
        DAMAGES[damage](draw.choice(place.files(WORK[name])), draw)
    one, other = place.files(WORK["tokens"])
    text = one.read_bytes()
    replaced(one, other)
    other.write_bytes(text)
    DAMAGES["gone"](place.files(WORK["examples"])[0], draw)
    record = place.start()
    assert place.tables() == place.calm
    assert sum(record.measured.values()) > 0, "what was damaged is measured again"
    said = capfd.readouterr().err
    assert said.count("set aside, and made again") >= 4
    assert "Traceback" not in said


def test_results_that_are_gone_or_cut_are_made_again_from_the_measurements(place, capfd):
    place.restore(finished=True)
    shutil.rmtree(Path(place.record.run_dir, "scored"))
    DAMAGES["cut"](place.files(RESULTS["core-set"])[0], random.Random(0))
    record = place.start()
    assert "the run is not finished any more" in capfd.readouterr().err
    assert place.tables() == place.calm
    assert record.measured == {"base": 0, "reference": 0}
    assert place.start().reused == record.reused
    assert "finished already" in capfd.readouterr().err


def tear(folder: Path) -> int:
    """Put the first half of every file beside it, as a process leaves it that was killed while it wrote."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        data = path.read_bytes()
        path.with_name(f"{TEMPORARY}{uuid4().hex}-{path.name}").write_bytes(data[: len(data) // 2])
    return len(files)


def test_torn_files_beside_whole_ones_are_passed_over(place):
    place.restore(finished=True)
    assert tear(place.folder / "store") > 10
    assert tear(place.folder / "runs") > 8
    Path(place.record.run_dir, "record.json").unlink()  # so that the run is an unfinished one
    record = place.start()
    assert place.tables() == place.calm
    assert record.measured == {"base": 0, "reference": 0}
    assert next(iter(verify_lines(place.recipe.store, delete=False))).startswith("sound")


def ends_well(place: Place, path: Path, damage: Callable[[], None], *, finished: bool) -> bool:
    """Damage a restored file and start; tell whether the run ends with the same bytes, or names the file."""
    place.restore(finished=finished)
    damage()
    try:
        place.start()
    except StoreError as error:
        return str(path) in str(error)
    if place.tables() == place.calm:
        return True
    with pytest.raises(StoreError, match="1 damaged file"):  # what only a look at all bytes can see
        list(verify_lines(place.record.run_dir, delete=False))
    list(verify_lines(place.record.run_dir, delete=True))
    place.start()
    return place.tables() == place.calm


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [*WORK, *RESULTS])
def test_each_damage_to_each_file(place, name):
    draw = random.Random(name)
    finished = name in RESULTS
    for kind in DAMAGES:
        place.restore(finished=finished)
        path = draw.choice(place.files((WORK | RESULTS)[name]))
        assert ends_well(
            place, path, lambda kind=kind, path=path: DAMAGES[kind](path, draw), finished=finished
        ), kind
    if len(files := place.files((WORK | RESULTS)[name])) > 1:
        assert ends_well(place, files[0], lambda: replaced(*files[:2]), finished=finished), "replaced"


@pytest.mark.usefixtures("ray_cluster")
def test_of_two_starts_at_once_the_second_waits_and_tells_the_same(tmp_path, tiny_models):
    for name, model in zip(("base", "reference"), tiny_models, strict=True):
        shutil.copytree(model, tmp_path / "models" / name)
    command = command_of(tmp_path, write_corpus(tmp_path / "corpus", 4, 4), "NotedHash")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    variables = environment() | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    starts = [subprocess.Popen(command, cwd=ROOT, env=variables, **pipes) for _ in range(2)]
    told = [one.communicate(timeout=400) for one in starts]
    assert [one.returncode for one in starts] == [0, 0], told
    records = [json.loads(out.splitlines()[-1]) for out, _ in told]
    assert records[0]["run_id"] == records[1]["run_id"]
    said = sorted((err for _, err in told), key=lambda err: "finished already" in err)
    assert "finished already" not in said[0]
    assert "another start is at work since" in said[1]
    assert ": waiting for it" in said[1]
    assert sorted(sum(record["measured"].values()) for record in records)[0] == 0
