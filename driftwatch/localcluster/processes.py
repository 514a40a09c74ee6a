"""Starts and finds processes that either outlive the starting command or end with their parent.

A detached process is found again only by its record. Process ids are reused, so a process matches the record only if
its start time and program agree. Any other process is left alone.
"""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psutil  # its stubs are a separate package

from driftwatch.localcluster import launcher
from driftwatch.localcluster.errors import StateError

# The kernel keeps start times in ticks since boot. Converted to a date they shift a little when the clock is
# set.
START_TIME_TOLERANCE_SECONDS = 2.0
POLL_SECONDS = 0.01
BURY_SECONDS = 30.0  # a process has lost its program before it has ended, for seconds on a machine that is overloaded

# The kernel sends the parent-death signal when the *thread* that started the child ends. Children are
# therefore started from a thread that lives as long as this process, not from the calling one.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="localcluster-spawn")
# Kept so that any cluster object can reap the children.
_children: dict[int, subprocess.Popen[bytes]] = {}


class ProcessRecord(msgspec.Struct, frozen=True):
    """Identifies a process beyond its id: `started` is in seconds since the epoch, `program` its executable."""

    pid: int
    started: float
    program: str


def spawn(command: list[str], log: Path, folder: Path, *, detach: bool) -> ProcessRecord:
    """Start `command` in its own session, in `folder`, with its output appended to `log`.

    With `detach` it outlives this process; otherwise the kernel kills it when this process ends (on Linux).
    """
    program = os.path.realpath(command[0])
    if not detach:
        command = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), *command]
    child = _spawner.submit(_start, command, log, folder).result()
    _children[child.pid] = child
    return ProcessRecord(child.pid, psutil.Process(child.pid).create_time(), program)


def _start(command: list[str], log: Path, folder: Path) -> "subprocess.Popen[bytes]":
    # A log may quote a client's data, so only its owner may read it.
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            start_new_session=True,
            umask=0o077,  # etcd takes its snapshots' mode from the umask
        )


def find(record: ProcessRecord) -> psutil.Process | None:
    """The recorded process if it still runs, else None."""
    _reap()
    try:
        process = psutil.Process(record.pid)
        if abs(process.create_time() - record.started) > START_TIME_TOLERANCE_SECONDS:
            return None
        if process.status() == psutil.STATUS_ZOMBIE:
            # A zombie: its parent has not reaped it. A killed process looks the same while some of its threads still
            # run and hold its ports.
            return process if process.num_threads() > 1 else None
        program = process.exe()
    except psutil.Error:
        return None
    # A child of ours may not have exec'ed its program yet.
    return process if program == record.program or record.pid in _children else None


def stop(record: ProcessRecord, timeout: float) -> None:
    """Stop the recorded process: SIGTERM, up to `timeout` seconds, then SIGKILL. Returns when it has ended."""
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
    """Reap every child that has ended, even if another process stopped it."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)


def _bury(pid: int) -> None:
    """Reap an ended child. For a moment, an ending process has no exit code."""
    child = _children.pop(pid, None)
    if child is not None:
        child.wait(BURY_SECONDS)


def send(record: ProcessRecord, number: signal.Signals) -> bool:
    """Send a signal to the recorded process; False if it has ended."""
    process = find(record)
    if process is None:
        return False
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def wait_gone(record: ProcessRecord, timeout: float) -> bool:
    """Wait until the recorded process has ended; False if it has not after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while find(record) is not None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    _bury(record.pid)
    return True
