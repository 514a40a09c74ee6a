"""Processes that outlive the command that started them, or never outlive their parent: whichever is asked for.

A detached process is known afterwards only by what was written down about it. Process ids are used again, so
a process is the recorded one only if its start time and its program agree; any other is left alone.
"""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psutil  # its stubs are a package apart

from driftwatch.localcluster import launcher
from driftwatch.localcluster.errors import StateError

# Start times are kept by the kernel in ticks since boot; turned into a date they move a little when the clock
# is set.
START_TIME_TOLERANCE_SECONDS = 2.0
POLL_SECONDS = 0.01
BURY_SECONDS = 5.0  # until a process that nobody can look into any more has ended

# The kernel's signal at a parent's death comes when the *thread* that started the child ends. Children are
# therefore started from a thread that lives as long as this process, not from the one that happens to call.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="localcluster-spawn")
# Kept so that children are reaped, by whichever cluster object stops them.
_children: dict[int, subprocess.Popen[bytes]] = {}


class ProcessRecord(msgspec.Struct, frozen=True):
    """Identifies a process beyond its id: `started` is in seconds since the epoch, `program` its executable."""

    pid: int
    started: float
    program: str


def spawn(command: list[str], log: Path, folder: Path, *, detach: bool) -> ProcessRecord:
    """Start `command` in a session of its own, in `folder`, its output appended to `log`.

    With `detach` it goes on when this process ends; without, the kernel kills it then (on Linux).
    """
    program = os.path.realpath(command[0])
    if not detach:
        command = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), *command]
    child = _spawner.submit(_start, command, log, folder).result()
    _children[child.pid] = child
    return ProcessRecord(child.pid, psutil.Process(child.pid).create_time(), program)


def _start(command: list[str], log: Path, folder: Path) -> "subprocess.Popen[bytes]":
    # A log may quote what a client sent, so it is for its owner only.
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            start_new_session=True,
            umask=0o077,  # etcd leaves the mode of its snapshots to it
        )


def find(record: ProcessRecord) -> psutil.Process | None:
    """The recorded process if it still runs."""
    _reap()
    try:
        process = psutil.Process(record.pid)
        if abs(process.create_time() - record.started) > START_TIME_TOLERANCE_SECONDS:
            return None
        if process.status() == psutil.STATUS_ZOMBIE:
            # Ended, and its parent has not asked for the exit code. One that was killed looks the same while some of
            # its threads are still at it, and holds its ports.
            return process if process.num_threads() > 1 else None
        program = process.exe()
    except psutil.Error:
        return None
    # A child of ours may not have become its program yet.
    return process if program == record.program or record.pid in _children else None


def stop(record: ProcessRecord, timeout: float) -> None:
    """End the recorded process: ask, wait `timeout` seconds, then kill it. Returns when it is gone."""
    for number, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, 10.0)):
        gone = not send(record, number)
        if not gone:
            send(record, signal.SIGCONT)  # a suspended process would not see the request
            gone = wait_gone(record, patience)
        if gone:
            _bury(record.pid)
            return
    raise StateError(f"process {record.pid} ({record.program}) does not end: see what holds it (its state in `ps`)")


def _reap() -> None:
    """Ask for the exit code of every child that has ended, whoever ended it: another process may have."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)


def _bury(pid: int) -> None:
    """Ask for the exit code of a child that is gone. A process that is just ending has none for a moment."""
    child = _children.pop(pid, None)
    if child is not None:
        child.wait(BURY_SECONDS)


def send(record: ProcessRecord, number: signal.Signals) -> bool:
    """Send a signal to the recorded process; False if it is gone."""
    process = find(record)
    if process is None:
        return False
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def wait_gone(record: ProcessRecord, timeout: float) -> bool:
    """Wait until the recorded process is gone; False if it is not after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while find(record) is not None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    _bury(record.pid)
    return True
