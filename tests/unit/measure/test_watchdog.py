"""A call that does not answer ends its process, whatever it is stuck in; one that does is left alone."""

import subprocess
import sys
import time
from threading import Event

import psutil

from davir_ray.measure import watchdog
from davir_ray.measure.watchdog import Watchdog

STUCK = """
import subprocess, sys, time
from davir_ray.measure import watchdog
watchdog.GRACE_SECONDS = 0.1
child = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
watchdog.Watchdog(0.1).watch({call}, print)({argument})
"""


def stuck(call: str, argument: str = "600") -> tuple[int, list[str], int]:
    """Run a process that is stuck in a call; return its exit code, what it told, and the pid of its child."""
    code = STUCK.format(call=call, argument=argument)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    pid, *told = done.stdout.splitlines()
    return done.returncode, told, int(pid)


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_process_that_is_stuck_ends_with_all_that_it_started():
    code, told, child = stuck("time.sleep")
    assert (code, told) == (1, ["the engine stalled: no answer within 0.2 seconds"])
    end = time.monotonic() + 10
    while lives(child):  # the kernel ends it in its own time
        assert time.monotonic() < end


def test_a_process_that_is_stuck_and_lets_no_other_thread_run_ends_too():
    code, told, child = stuck("__import__('ctypes').PyDLL(None).sleep")
    psutil.Process(child).kill()
    assert (code, told) == (1, [])


def test_a_call_that_answers_is_left_alone():
    ended = Event()
    call = Watchdog(0.05, ended.set).watch(lambda number: number + 1, str)
    assert [call(number) for number in range(3)] == [1, 2, 3]
    assert not ended.wait(0.3)


def test_only_the_first_call_may_take_longer():
    dog = Watchdog(5.0, Event().set)
    call = dog.watch(str, str)
    assert dog.limit == 10.0
    call(1)
    assert dog.limit == 5.0
    dog.watch(str, str)(2)
    assert dog.limit == 5.0


def test_a_stall_that_cannot_be_noted_ends_the_process_all_the_same(monkeypatch):
    monkeypatch.setattr(watchdog, "GRACE_SECONDS", 0.05)
    ended = Event()
    Watchdog(0.02, ended.set).watch(lambda _: ended.wait(20), lambda _: time.sleep(0.5))(None)
    assert ended.is_set()


def test_a_process_ends_though_a_child_of_its_is_gone_already(monkeypatch):
    class Gone:
        def kill(self):
            raise psutil.NoSuchProcess(1)

    ended = []
    monkeypatch.setattr(watchdog.psutil.Process, "children", lambda self, recursive: [Gone()])
    monkeypatch.setattr(watchdog.os, "_exit", ended.append)
    watchdog.end_process()
    assert ended == [1]
