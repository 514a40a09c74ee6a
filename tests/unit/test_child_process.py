"""Child processes end in time, and with everything that they started."""

import asyncio
import os
import threading
import time
from pathlib import Path

import psutil
import pytest
from driftwatch import child_process
from driftwatch.child_process import OneAtATime

STUBBORN = "trap '' TERM; sleep 60 & echo $! >> {pids}; echo said; echo $$ >> {pids}; wait"
"""A shell that is not ended by a signal that it may ignore, and whose own child holds its pipes."""


class Stopped(Exception):
    """It was interrupted."""


def gone(pids: Path) -> bool:
    """Whether every process that wrote its id has ended."""
    found = [int(line) for line in pids.read_text().split()]
    assert len(found) == 2
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in found)


async def until_gone(pids: Path) -> None:
    async with asyncio.timeout(10):
        while not gone(pids):  # noqa: ASYNC110  nothing tells of the end of a grandchild
            await asyncio.sleep(0.01)


async def test_a_child_that_does_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    """What it had written until then is kept."""
    pids = tmp_path / "pids"
    started = child_process.start(["sh", "-c", STUBBORN.format(pids=pids)])
    ended, timed_out = child_process.finish(started, 1.0)
    assert timed_out
    assert (ended.status, ended.output) == (-9, b"said\n")
    await until_gone(pids)


async def test_a_child_of_the_loop_that_does_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    """Also when whoever waits for it is cancelled."""
    for limit in (1.0, 60.0):
        pids = tmp_path / f"pids-{limit}"
        waiting = asyncio.ensure_future(
            child_process.run_async(["sh", "-c", STUBBORN.format(pids=pids)], dict(os.environ), limit, 100)
        )
        if limit > 1.0:
            async with asyncio.timeout(10):
                while not pids.exists() or len(pids.read_text().split()) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            waiting.cancel()
        with pytest.raises((TimeoutError, asyncio.CancelledError)):
            await waiting
        await until_gone(pids)


async def test_output_beyond_the_bound_is_read_and_dropped() -> None:
    """The child ends, for its pipe is emptied."""
    command = ["sh", "-c", "head -c 1000000 /dev/zero; echo no >&2; exit 3"]
    ended = await child_process.run_async(command, dict(os.environ), 20.0, 100)
    assert (ended.status, len(ended.output), ended.errors) == (3, 101, b"no\n")


def test_an_interrupt_ends_the_child_and_lets_no_other_start() -> None:
    """It comes from another thread than the one that waits."""
    child = OneAtATime(Stopped)
    running = child.start(lambda: child_process.start(["sleep", "60"]))
    threading.Timer(0.1, child.interrupt).start()
    began = time.monotonic()
    child_process.finish(running, 50.0)
    assert time.monotonic() - began < 40.0
    child.ended()
    with pytest.raises(Stopped):
        child.check()
    with pytest.raises(Stopped):
        child.start(lambda: pytest.fail("it started"))
