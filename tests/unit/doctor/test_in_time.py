"""What is known is told at once, and what never ends is told of and left behind."""

import os
import subprocess
import sys
import time

from click.testing import CliRunner

from davir_ray.cli import main
from davir_ray.doctor import address, examine, in_time
from davir_ray.doctor.finding import Finding
from davir_ray.doctor.in_time import look_in_time


def test_a_look_that_ends_is_what_it_finds():
    assert look_in_time("store", lambda: Finding("store", "ok", "here")) == Finding("store", "ok", "here")


def test_a_look_that_does_not_end_is_a_finding(monkeypatch):
    monkeypatch.setattr(in_time, "SECONDS", 0.01)
    found = look_in_time("store", lambda: time.sleep(60))
    assert (found.name, found.state, found.problem) == ("store", "wrong", "not done after 0 seconds")
    assert found.mend.startswith("davir doctor")


def test_a_name_server_that_does_not_answer_is_a_finding(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr(address, "SECONDS_IN_ALL", 0.01)
    monkeypatch.setattr("socket.create_connection", lambda *_: time.sleep(60))
    (found,) = address.look_at_cluster()
    assert (found.name, found.state, found.problem) == ("RAY_ADDRESS", "wrong", "not done after 0 seconds")


def test_a_recipe_that_is_not_read_in_time_is_a_finding(monkeypatch):
    monkeypatch.setattr(examine, "SECONDS", 0.01)
    monkeypatch.setattr("davir_ray.runs.run.load_run_or_recipe", lambda *_: time.sleep(60))
    (found,) = examine._recipe("r.yaml")[2]
    assert found.problem == "not done after 0 seconds"
    assert found.mend.startswith("davir doctor")


def test_address_and_recipe_are_told_of_before_anything_is_imported(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    (tmp_path / "r.yaml").write_text("corpus: {paths: a}")
    probed = []
    monkeypatch.setattr(examine, "probe", lambda code: probed.append(code) or examine.Probe())
    monkeypatch.setattr(examine, "look_at_gpus", lambda torch: Finding("GPU", "ok", ""))
    told = examine.examine(str(tmp_path / "r.yaml"))
    assert [next(told).name for _ in range(3)] == ["Python", "RAY_ADDRESS", "recipe"]
    assert not probed
    assert "torch" in {one.name for one in told}
    assert probed


def test_a_line_is_printed_once_it_is_known(monkeypatch):
    def interrupted(recipe):
        yield Finding("Python", "ok", "3.12.1")
        raise KeyboardInterrupt

    monkeypatch.setattr(examine, "examine", interrupted)
    told = CliRunner().invoke(main, ["doctor"])
    assert told.stdout == "ok      Python           3.12.1\n"
    assert told.exit_code == 130


def test_a_look_that_never_ends_does_not_keep_the_process(tmp_path):
    """Rows are looked at in threads for which Python waits at its end."""
    os.mkfifo(tmp_path / "rows.jsonl")
    (tmp_path / "r.yaml").write_text(
        f"corpus: {{paths: {tmp_path}/rows.jsonl}}\nmodels: {{base: {tmp_path}}}\n"
    )
    code = f"""
from davir_ray.cli import main
from davir_ray.doctor import examine, in_time, reach
in_time.SECONDS = 2.0
examine._packages = lambda needed: (yield from ())
main(["doctor", "{tmp_path}/r.yaml"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 9, done.stderr
    assert "not done after 2 seconds" in done.stdout
    assert "are wrong" in done.stderr
