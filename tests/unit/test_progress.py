import os
import pty
import re
import subprocess
import sys
import time

import pytest

from davir_ray import progress as told
from davir_ray.progress import Progress, data_size, duration, quietly, say, warn
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.6, "1m 00s"), (3599, "59m 59s"), (3600, "1h 00m"), (86399, "23h 59m"), (93600, "1d 02h")],
)
def test_seconds_are_written_as_people_say_them(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (52e6, "52.0 MB"), (3.2e15, "3200.0 TB")],
)
def test_bytes_are_written_as_people_say_them(count, text):
    assert data_size(count) == text


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def begun() -> tuple[Progress, Clock]:
    clock = Clock()
    return Progress("measure base", 1000, "tokens", clock=clock), clock


def test_before_anything_is_done_a_line_tells_how_long_it_has_been_and_divides_by_nothing():
    progress, clock = begun()
    clock.now += 80
    assert progress.line() == "measure base: 0 of 1,000 tokens (0%), 1m 20s so far"


def test_after_the_first_a_line_tells_the_speed_over_all_and_what_is_left():
    progress, clock = begun()
    clock.now += 5
    progress.add(250, rows=50, size=2000)
    told = "measure base: 250 of 1,000 tokens (25%), 50 tokens/s, 10 rows/s, 2.0 kB, 15s left"
    assert progress.line() == told


def test_the_time_to_load_an_engine_is_no_speed():
    progress, clock = begun()
    clock.now += 600  # of which 590 loaded the engine
    progress.add(100, rows=10)
    clock.now += 10
    progress.add(200, rows=30)
    assert progress.speed == 20
    assert progress.line() == "measure base: 300 of 1,000 tokens (30%), 20 tokens/s, 3.0 rows/s, 35s left"


def test_at_the_end_the_speed_is_over_all():
    progress, clock = begun()
    for _ in range(2):
        clock.now += 5
        progress.add(500)
    assert progress.line() == "measure base: 1,000 of 1,000 tokens (100%), 100 tokens/s, in 10s"


def test_in_a_log_there_is_a_line_a_minute_though_nothing_is_done(monkeypatch, capsys):
    monkeypatch.setattr(told, "SECONDS_BETWEEN_LINES", 0.05)
    progress, _ = begun()
    with progress.telling():
        time.sleep(0.3)
        progress.add(1000)
    *waiting, last = capsys.readouterr().err.splitlines()
    assert 2 <= len(waiting) <= 6
    assert set(waiting) == {"measure base: 0 of 1,000 tokens (0%), 0s so far"}
    assert last.startswith("measure base: 1,000 of 1,000 tokens (100%)")


def test_a_stage_shorter_than_a_minute_has_one_line_and_an_error_stands_alone(capsys):
    progress, _ = begun()
    with progress.telling():
        progress.add(10)
    assert capsys.readouterr().err.count("measure base") == 1
    with pytest.raises(ZeroDivisionError), progress.telling():
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""


def test_quiet_leaves_warnings(capsys):
    progress, _ = begun()
    with quietly(), progress.telling():
        progress.add(1000)
        say("a note")
        warn("a loss")
    say("another note")
    assert capsys.readouterr().err == "warning: a loss\nanother note\n"


IN_A_TERMINAL = """
import time
from davir_ray.progress import Progress, say

progress = Progress("measure\\x1b[31m base", 4, "tokens")
with progress.telling():
    time.sleep(1.2)
    progress.add(1)
    say("a note")
    time.sleep(1.2)
    progress.add(3)
"""


def in_a_terminal(program: str) -> str:
    """Run a program whose stderr is a terminal of 80 columns; return what it wrote there."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program], stderr=theirs, env=environment) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                written += os.read(ours, 65536)
            except OSError:  # Linux's way to say that nobody holds the other side any more
                break
    os.close(ours)
    assert process.returncode == 0, written
    return written.decode()


def test_in_a_terminal_one_line_renews_itself_below_what_is_said():
    written = in_a_terminal(IN_A_TERMINAL)
    states = re.findall(r"(\d) of 4 tokens", written)
    assert (states[0], states[-1]) == ("0", "4")
    assert states.count("0") >= 2  # renewed, though nothing was done
    assert "\x1b[2K" in written  # what stood there is erased
    visible = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.rsplit("\x1b[2K", 1)[1])
    assert visible.strip().startswith(r"measure\x1b[31m base: 4 of 4 tokens (100%)")
    note = written.index("a note")
    assert written[:note].endswith("\x1b[2K")
    assert visible.count("\n") == 1  # the last state stays
