"""Processes that are stopped by what was written down about them, and those that must not outlive their parent."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time

import msgspec
import psutil
import pytest
from driftwatch.localcluster import processes

from tests.support.waiting import until

SLEEP = ["/bin/sleep", "60"]


@pytest.fixture
def spawn(tmp_path):
    """Start a process that is ended with the test."""
    started = []

    def spawn(command=SLEEP, *, detach=True):
        record = processes.spawn(list(command), tmp_path / "log", tmp_path, detach=detach)
        started.append(record)
        return record

    yield spawn
    for record in started:
        processes.stop(record, 1.0)


def test_recorded_process_is_stopped(spawn):
    """The normal case: it is asked to end, and does."""
    record = spawn()

    processes.stop(record, 5.0)

    assert not _runs(record.pid)


def _runs(pid):
    """Whether the process has not ended, though its parent may not have asked for the exit code yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("change", [{"started": 1.0e9}, {"program": "/usr/bin/other"}])
def test_process_that_is_not_the_recorded_one_is_left_alone(change):
    """A process id that was given to somebody else since is not stopped."""
    with subprocess.Popen(SLEEP) as stranger:
        try:
            record = processes.ProcessRecord(
                stranger.pid, psutil.Process(stranger.pid).create_time(), psutil.Process(stranger.pid).exe()
            )
            assert processes.find(record)
            changed = msgspec.structs.replace(record, **change)

            assert processes.find(changed) is None
            assert not processes.send(changed, signal.SIGTERM)
            processes.stop(changed, 0.1)

            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_process_that_ignores_the_request_is_killed(spawn, tmp_path):
    """Stopping ends in bounded time."""
    record = spawn(["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"])
    while "ready" not in (tmp_path / "log").read_text():
        time.sleep(0.01)

    processes.stop(record, 0.2)

    assert not _runs(record.pid)


@pytest.mark.alone
def test_suspended_process_is_stopped_without_violence(spawn):
    """A process under SIGSTOP does not see a request to end; it is woken first."""
    record = spawn()
    processes.send(record, signal.SIGSTOP)
    start = time.monotonic()

    processes.stop(record, 5.0)

    assert time.monotonic() - start < 2.0


def test_attached_process_survives_the_thread_that_started_it(spawn):
    """The kernel ties a child to a thread; a caller's thread may end at any time."""
    records = []
    thread = threading.Thread(target=lambda: records.append(spawn(detach=False)))
    thread.start()
    thread.join()
    time.sleep(0.3)

    assert processes.find(records[0])


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux's")
def test_only_detached_processes_survive_a_crash_of_the_parent(tmp_path):
    """SIGKILL leaves the parent no chance to clean up; the kernel does it."""
    source = f"""
import sys, time
from pathlib import Path
from driftwatch.localcluster import processes

from tests.support.waiting import until
for detach in (False, True):
    record = processes.spawn({SLEEP!r}, Path("log"), Path("."), detach=detach)
    while processes.psutil.Process(record.pid).exe() != record.program:
        time.sleep(0.01)
    print(record.pid, record.started, record.program, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", source], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as parent:
        records = []
        for _ in range(2):
            pid, started, program = parent.stdout.readline().split()
            records.append(processes.ProcessRecord(int(pid), float(started), program))
        attached, detached = records
        assert processes.find(attached)
        parent.kill()
    try:
        assert processes.wait_gone(attached, 5.0)
        assert processes.find(detached)
    finally:
        processes.stop(detached, 1.0)


def test_what_another_process_has_ended_is_reaped_at_the_next_look(spawn):
    """Nobody looks for it any more once its record is gone, and it would stay a zombie for as long as we run."""
    ended, other = spawn(), spawn()
    os.kill(ended.pid, signal.SIGKILL)
    until(lambda: psutil.Process(ended.pid).status() == psutil.STATUS_ZOMBIE, "it has ended")

    assert processes.find(other)

    assert not psutil.pid_exists(ended.pid)


def test_program_that_cannot_be_started_says_so_in_the_log(spawn, tmp_path):
    """The reason is where the operator looks."""
    record = spawn(["/nonexistent/program"], detach=False)

    assert processes.wait_gone(record, 5.0)
    assert "No such file or directory" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("detach", [True, False])
def test_what_a_process_writes_is_private(spawn, tmp_path, detach):
    """Snapshots of etcd are written with 0666; what is left of that is the umask's."""
    spawn(["/bin/sh", "-c", "echo kept > snapshot; exec sleep 60"], detach=detach)

    snapshot = tmp_path / "snapshot"
    until(snapshot.exists, "it has written")

    assert stat.S_IMODE(snapshot.stat().st_mode) == 0o600
