"""Corpus, store and output on an S3 that fails, stalls and lists late: runs end as if nothing had been, or say why."""

import json
import os
import subprocess
import sys

import fsspec
import pyarrow as pa
import pytest
import yaml

from davir_ray import storage
from davir_ray.config import CorpusConfig
from davir_ray.corpus.listing import list_corpus
from davir_ray.errors import CorpusError, Unreachable
from davir_ray.logprobs.kinds import LOSS
from davir_ray.runs.lease import Lease, take
from davir_ray.runs.record import RunRecord
from davir_ray.storage.filesystems import filesystem
from davir_ray.store.compaction import compact
from davir_ray.store.measurements import MeasurementStore
from tests.conftest import ROOT
from tests.measured import held, store_with
from tests.real.faulty_s3 import KINDS, FaultyS3

pytestmark = pytest.mark.real

CORPUS = "s3://faulty/corpus"
PATIENCE = {"config_kwargs": {"read_timeout": 1, "connect_timeout": 2}}
FILES, ROWS = 4, 150
RUN_SECONDS = 240


@pytest.fixture(scope="module")
def s3():
    """The server; address and keys are in the environment, and a corpus lies on it."""
    with pytest.MonkeyPatch.context() as patch:
        moto = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        moto.start()
        proxy = FaultyS3(moto.get_host_and_port())
        server = proxy.serve()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.server_address))
        patch.setitem(fsspec.config.conf, "s3", PATIENCE)
        fs, _ = filesystem("s3://faulty")
        fs.makedirs("faulty", exist_ok=True)
        for number in range(FILES):
            rows = [
                {"question": f"What is {number} and {i}?", "answer": f"It is {number + i}, I think."}
                for i in range(ROWS)
            ]
            storage.write_table(f"{CORPUS}/part-{number}.parquet", pa.Table.from_pylist(rows))
        yield proxy
        fs.clear_instance_cache()
        server.shutdown()
        moto.stop()


@pytest.fixture
def impatient(monkeypatch):
    """A client that asks twice."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")


def recipe(folder, models, name: str, **changes) -> str:
    tree = {
        "corpus": {"paths": f"{CORPUS}/*.parquet"},
        "models": {"base": models[0], "reference": models[1]},
        "engine": {"type": "tests.engines:PathHash", "num_cpus": 1},
        "select": [{"type": "fraction", "fraction": 0.3}],
        "store": f"s3://faulty/{name}/store",
        "output": f"s3://faulty/{name}/runs",
    }
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump(tree | changes))
    return str(path)


def start(*words: str) -> subprocess.Popen:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "FSSPEC_S3": json.dumps(PATIENCE),
    }
    command = [sys.executable, "-m", "davir_ray.cli", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def ended(process: subprocess.Popen) -> tuple[str, str]:
    """Wait for a process, and leave none behind."""
    try:
        return process.communicate(timeout=RUN_SECONDS)
    finally:
        process.kill()


def finish(process: subprocess.Popen) -> RunRecord:
    out, err = ended(process)
    assert process.returncode == 0, err[-3000:]
    return RunRecord.model_validate_json(out.splitlines()[-1])


def result(record: RunRecord) -> dict[str, bytes]:
    """The scored table and the core-set, byte for byte."""
    folders = {"scored": record.scored, "coreset": record.coreset["parquet"]}
    return {
        f"{name}/{uri.rsplit('/', 1)[-1]}": storage.read_bytes(uri)
        for name, folder in folders.items()
        for uri in storage.list_files(folder)
    }


def parts_written(s3: FaultyS3) -> dict[str, int]:
    return {
        request: count
        for request, count in s3.served.items()
        if request.startswith("PUT") and "/measurements/" in request and ".parquet" in request
    }


@pytest.fixture(scope="module")
def calm(s3, tiny_models, tmp_path_factory):
    """What a run gives on a server without faults, and the parts that it writes."""
    s3.begin()
    record = finish(start("score", "--json", recipe(tmp_path_factory.mktemp("calm"), tiny_models, "calm")))
    assert record.status == {"ok": FILES * ROWS}
    return result(record), len(parts_written(s3))


def test_a_run_on_a_server_that_fails_now_and_then_ends_as_if_it_never_had(s3, tiny_models, tmp_path, calm):
    s3.begin(share=0.15, seed=1)
    record = finish(start("score", "--json", recipe(tmp_path, tiny_models, "shaky")))
    met = dict(s3.met)
    s3.begin()
    assert set(met) == set(KINDS), "every kind of fault was met"
    assert result(record) == calm[0]
    assert "sound" in davir("store", "verify", "s3://faulty/shaky/store")


def davir(*words: str) -> str:
    out, err = ended(process := start(*words))
    assert process.returncode == 0, out + err
    return out


@pytest.mark.nightly
def test_a_run_on_a_server_that_lists_late_loses_nothing_and_does_nothing_twice(
    s3, tiny_models, tmp_path, calm
):
    s3.begin(lag_seconds=3.0)
    record = finish(start("score", "--json", recipe(tmp_path, tiny_models, "late")))
    written = parts_written(s3)
    s3.begin()
    assert result(record) == calm[0]
    assert (len(written), set(written.values())) == (calm[1], {1})


@pytest.mark.nightly
def test_a_store_that_cannot_be_written_ends_the_run_in_words_and_the_next_goes_on(
    s3, tiny_models, tmp_path, calm, impatient
):
    path = recipe(tmp_path, tiny_models, "broken")
    s3.begin(
        fails=lambda method, target: method == "PUT" and "/measurements/" in target and ".parquet" in target
    )
    process = start("score", path)
    _, err = ended(process)
    assert process.returncode == Unreachable.exit_code, err
    (told,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert told.startswith("error: s3://faulty/broken/store/measurements/")
    assert "the storage fails: OSError" in told
    assert "internal error" in told
    assert "Traceback" not in err
    s3.begin()
    assert result(finish(start("score", "--json", path))) == calm[0]


@pytest.mark.nightly
def test_two_runs_that_write_to_one_store_at_once_are_both_right(s3, tiny_models, tmp_path, calm):
    s3.begin()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    slow = {"type": "tests.engines:SlowEngine", "num_cpus": 1}
    one = recipe(tmp_path / "one", tiny_models, "shared", engine=slow)
    other = recipe(tmp_path / "other", tiny_models, "shared", engine=slow, score={"name": "rho_sum"})
    records = [finish(process) for process in [start("score", "--json", path) for path in (one, other)]]
    assert result(records[0]) == calm[0]
    assert losses(records[1]) == losses(records[0])
    assert "sound" in davir("store", "verify", "s3://faulty/shared/store")
    again = finish(start("select", "--json", other, "--set", "select=[{type: count, count: 7}]"))
    assert (again.selected, sum(again.measured.values())) == (7, 0)


def losses(record: RunRecord) -> dict:
    columns = ["example_id", "base_loss", "reference_loss"]
    rows = [storage.read_table(uri, columns) for uri in storage.list_files(record.scored)]
    return {row.pop("example_id"): row for row in pa.concat_tables(rows).to_pylist()}


@pytest.mark.parametrize("what", ["list-type=2", "part-2.parquet"])
def test_a_corpus_that_cannot_be_listed_or_read_is_no_smaller_corpus(s3, impatient, what):
    s3.begin(fails=lambda method, target: method == "GET" and what in target)
    corpus = CorpusConfig(paths=f"{CORPUS}/*.parquet", on_bad_file="skip")
    with pytest.raises(CorpusError, match=r"s3://faulty/corpus/.*: the storage fails: OSError"):
        list_corpus(corpus)
    s3.begin()
    listing = list_corpus(corpus)
    assert (len(listing.splits), listing.bad_files) == (FILES, ())


def test_a_corpus_that_never_answers_is_not_called_damaged(s3, impatient, monkeypatch):
    s3.begin(share=1.0, stall_seconds=1.5)
    monkeypatch.setattr("tests.real.faulty_s3.KINDS", ("stall",))
    with pytest.raises(CorpusError, match="the storage fails: ReadTimeoutError"):
        list_corpus(CorpusConfig(paths=f"{CORPUS}/part-1.parquet", on_bad_file="skip"))
    s3.begin()


def test_an_upload_that_stops_half_way_is_no_file_and_replaces_none(s3, impatient):
    s3.begin()
    uri = "s3://faulty/half/a.parquet"
    storage.write_atomic(uri, b"old")
    s3.begin(fails=lambda method, target: "partNumber=2" in target)
    for place in (uri, "s3://faulty/half/b.parquet"):
        with pytest.raises(Unreachable, match=place):
            storage.write_atomic(place, bytes(110 * 2**20))
    assert any("partNumber=1" in request for request in s3.served), "the first part had arrived"
    s3.begin()
    assert storage.list_files("s3://faulty/half") == [uri]
    assert storage.read_bytes(uri) == b"old"


def test_a_file_is_created_once_by_whoever_is_told_so_though_the_answer_is_lost(s3):
    uri = "s3://faulty/created/a.json"
    s3.begin(share=1.0)
    s3.faults.kind = lambda method, target, time_asked: (
        "lost_answer" if method == "PUT" and time_asked == 0 else None
    )
    assert storage.create(uri, b"mine")
    assert s3.met["lost_answer"] == 1
    s3.begin()
    assert not storage.create(uri, b"another's")
    assert storage.read_bytes(uri) == b"mine"


def test_a_lease_goes_from_start_to_start_though_the_listing_lags(s3):
    folder = "s3://faulty/lease"
    s3.begin(lag_seconds=60.0)
    for _ in range(3):
        lease = take(folder)
        assert isinstance(lease, Lease)
        with lease:
            assert lease.held()
            assert not isinstance(take(folder), Lease)
    s3.begin()


def test_parts_that_a_compaction_took_are_found_though_the_listing_lags(s3):
    s3.begin(lag_seconds=2.0)
    place = "s3://faulty/compacted/store/measurements/m"
    store = store_with(place, ("ab", [1.0, 2.0]), ("bc", [2.0, 3.0]))
    storage.await_listing(lambda: len(store.parts()) == 2, place)
    listed = [part.uri for part in MeasurementStore(place, LOSS).parts()]
    compact(store)
    assert len(store.read(listed)) == 3
    assert held(store)[1].tolist() == [1.0, 2.0, 3.0]
    s3.begin()
