import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from davir_ray import storage
from davir_ray.runs import lease
from davir_ray.runs.lease import (
    BEAT_SECONDS,
    STALE_SECONDS,
    Lease,
    at_work,
    is_fresh,
    newest_lease,
    take,
    this_host,
)
from tests import records


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    return str(tmp_path / "lease") if request.param == "local" else f"memory://{uuid4().hex}/lease"


def holder(**changes):
    now = time.time()
    return records.holder(**{"host": "elsewhere", "pid": 1, "started": now, "heartbeat": now} | changes)


def write(folder, number, **changes):
    storage.write_atomic(
        storage.join(folder, f"{number:08d}.json"), json.dumps(holder().tree() | changes).encode()
    )


def test_one_start_at_a_time(folder):
    first = take(folder)
    assert isinstance(first, Lease)
    with first:
        assert first.held()
        second = take(folder)
        assert second.id == first.holder.id
        assert second.pid == os.getpid()
    third = take(folder)
    assert isinstance(third, Lease)
    assert third.number == 2
    assert len(storage.list_files(folder)) == 1


def test_of_many_starts_at_once_one_gets_the_lease(folder):
    write(folder, 4, heartbeat=time.time() - 2 * STALE_SECONDS)
    with ThreadPoolExecutor(8) as pool:
        taken = [one for one in pool.map(take, [folder] * 8) if isinstance(one, Lease)]
    assert [one.number for one in taken] == [5]
    assert taken[0].held()


@pytest.mark.parametrize(
    ("age", "changes", "fresh"),
    [
        (0, {}, True),
        (0, {"released": True}, False),
        (STALE_SECONDS + 60, {}, False),
        (STALE_SECONDS - 60, {}, True),
        (-100, {}, True),
        (0, {"host": this_host(), "pid": os.getpid()}, True),
    ],
)
def test_a_holder_is_at_work_while_its_heartbeat_is_young(age, changes, fresh):
    assert is_fresh(holder(heartbeat=time.time() - age, **changes)) is fresh


def test_a_holder_of_this_machine_that_is_dead_holds_nothing(tmp_path):
    process = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    write(str(tmp_path), 3, host=this_host(), pid=int(process.stdout))
    taken = take(str(tmp_path))
    assert isinstance(taken, Lease)
    assert taken.number == 4


def test_who_was_taken_over_finds_out_and_releases_nothing(folder):
    slow = take(folder)
    with slow:
        write(folder, 2, id="faster")
        assert not slow.held()
    assert newest_lease(folder)[0] == 2
    assert newest_lease(folder)[1].released is False


def test_the_heartbeat_is_renewed_while_the_holder_works(folder, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.01)
    held = take(folder)
    with held:
        before = newest_lease(folder)[1].heartbeat
        end = time.monotonic() + 20
        while newest_lease(folder)[1].heartbeat == before and time.monotonic() < end:
            time.sleep(0.01)
        assert newest_lease(folder)[1].heartbeat > before


def test_a_heartbeat_that_cannot_be_written_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.01)
    calls = []

    def beat(self):
        calls.append(self.number)
        raise OSError("no such luck")

    monkeypatch.setattr(Lease, "beat", beat)
    with take(str(tmp_path / "lease")):
        end = time.monotonic() + 20
        while len(calls) < 3 and time.monotonic() < end:
            time.sleep(0.01)
    assert len(calls) >= 3


def test_a_heartbeat_may_be_missed_many_times():
    assert STALE_SECONDS >= 5 * BEAT_SECONDS


def test_nothing_half_written_is_left_beside_a_lease(tmp_path):
    assert isinstance(take(str(tmp_path / "lease")), Lease)
    assert [file.name for file in Path(tmp_path, "lease").iterdir()] == ["00000001.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"id": 3}', json.dumps(holder().tree() | {"pid": 0})])
def test_a_damaged_lease_is_nobodys(tmp_path, text):
    (tmp_path / "00000003.json").write_text(text)
    (tmp_path / "notes.json").write_text("{}")
    taken = take(str(tmp_path))
    assert isinstance(taken, Lease)
    assert taken.number == 4
    assert (tmp_path / "notes.json").exists()


@pytest.mark.parametrize("started", [0.0, 2.0**37 - 1, 2.0**37, 2.0**39, 1e300])
def test_whoever_is_said_to_hold_a_lease_can_be_told_of(tmp_path, started):
    write(str(tmp_path), 3, started=started)
    number, found = newest_lease(str(tmp_path))
    assert number == 3
    assert "process" in at_work(found)


@pytest.mark.parametrize("age", [float("nan"), -1e9])
def test_a_heartbeat_from_the_future_does_not_hold_for_ever(age):
    assert not is_fresh(holder(heartbeat=time.time() - age))


def test_who_comes_second_waits_and_says_for_whom(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.01)
    first = take(str(tmp_path))
    order = []

    def second():
        with lease.leased(str(tmp_path), "run x"):
            order.append("second")

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(second)
        with first:
            end = time.monotonic() + 20
            while "waiting for it" not in capsys.readouterr().err and time.monotonic() < end:
                time.sleep(0.01)
            order.append("first")
        waiting.result(timeout=20)
    assert order == ["first", "second"]
    assert time.monotonic() < end


def test_a_zombie_holds_nothing(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    end = time.monotonic() + 20
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.01)
    assert not is_fresh(holder(host=this_host(), pid=process.pid))
    process.wait()
