"""Child processes: each leads a process group of its own, and it is the group that is killed.

A child that starts others (git starts ssh, a credential plugin a shell) leaves them behind when only the child is
killed, and whoever holds its pipes keeps the reader waiting. So every wait has a limit, also the one after the kill.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

DRAIN_SECONDS = 2.0  # that a killed group has to close its pipes
_CHUNK = 2**16


class Ended(NamedTuple):
    """How a child ended, and what it wrote. `status` is negative for a signal."""

    status: int
    output: bytes
    errors: bytes


def kill_group(leader: int) -> None:
    """Kill the process group that this process leads, if there is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: "str | os.PathLike[str] | None" = None,
    stdin: bool = False,
) -> "subprocess.Popen[bytes]":
    """Start a child with pipes for what it writes, and for its input if it has any. Raises `OSError`."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,  # the session stays ours: what ends the session ends this
    )


def finish(process: "subprocess.Popen[bytes]", timeout: float, stdin: bytes | None = None) -> tuple[Ended, bool]:
    """Wait for a child that was started with pipes; it is killed after `timeout` seconds. Returns whether it was."""
    timed_out = False
    try:
        output, errors = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        timed_out = True
        output, errors = _drain(process)
    return Ended(process.returncode, output, errors), timed_out


def run(command: Sequence[str], timeout: float) -> Ended:
    """Run a child without input. Raises `OSError`, and `TimeoutError` after `timeout` seconds."""
    ended, timed_out = finish(start(command), timeout)
    if timed_out:
        raise TimeoutError(f"no answer within {timeout:g} s")
    return ended


async def run_async(command: Sequence[str], environment: Mapping[str, str], limit: float, most: int) -> Ended:
    """Run a child without input; of each stream, one byte more than `most` is kept at most.

    Raises `OSError`, and `TimeoutError` after `limit` seconds. When the caller is cancelled, the child is killed.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a child of the daemon itself asks nobody on a terminal
        )
    )
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _kill(await starting, most)
        raise
    ended = False
    try:
        async with asyncio.timeout(limit):
            output, errors = await asyncio.gather(_read(process.stdout, most), _read(process.stderr, most))
            status = await process.wait()
            ended = True
            return Ended(status, output, errors)
    finally:
        if not ended:
            await _kill(process, most)


class OneAtATime:
    """Holds the running child. `interrupt` may be called from any thread; `given_up` makes the error that says so."""

    def __init__(self, given_up: Callable[[], Exception]) -> None:
        self._given_up = given_up
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._interrupted = False

    def start(self, begin: Callable[[], "subprocess.Popen[bytes]"]) -> "subprocess.Popen[bytes]":
        """Start a child by `begin`; `ended` must follow. Raises what `begin` raises, and the error of `given_up`."""
        with self._lock:
            if self._interrupted:
                raise self._given_up()
            self._running = begin()
            return self._running

    def ended(self) -> None:
        """Take note that the child has ended."""
        with self._lock:
            self._running = None

    def check(self) -> None:
        """Raise the error of `given_up` after an interrupt."""
        if self._interrupted:
            raise self._given_up()

    def interrupt(self) -> None:
        """Kill the running child, and let no other start."""
        with self._lock:
            self._interrupted = True
            if self._running is not None:
                kill_group(self._running.pid)


def _drain(process: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
    """Kill a child and its group, and return what they had written."""
    kill_group(process.pid)
    try:
        return process.communicate(timeout=DRAIN_SECONDS)
    except subprocess.TimeoutExpired:  # a process that left the group still holds the pipe
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait(DRAIN_SECONDS)
        return b"", b""


async def _kill(process: asyncio.subprocess.Process, most: int) -> None:
    kill_group(process.pid)
    # asyncio takes a process for running until its pipes are read to their end; another process may hold them open.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            await asyncio.gather(_read(process.stdout, most), _read(process.stderr, most))
            await process.wait()


async def _read(stream: asyncio.StreamReader | None, most: int) -> bytes:
    """Read to the end, so that the child can end; what is beyond `most` bytes is dropped."""
    content = b""
    while stream is not None and (piece := await stream.read(_CHUNK)):
        content += piece[: most + 1 - len(content)]
    return content
