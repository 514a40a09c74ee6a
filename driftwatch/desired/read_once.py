"""Reads once what the sources declare at their newest commit, with the daemon's own code.

Commands without a daemon use it. A daemon with its own mirrors may run at the same time, so the mirrors are in a
temporary folder. There is no state on disk to fall back on.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from driftwatch.config import Source
from driftwatch.desired.client import ChangeAssembler, DesiredStateClient
from driftwatch.desired.protocol import Change, FetchFailed
from driftwatch.git.version import git_trouble
from driftwatch.source_spec import ClusterCapabilities

# The desired-state process bounds each network operation by the source's timeout. `NETWORK_OPERATIONS` is the most
# there are. `READING` is the time for reading ten thousand manifests.
NETWORK_OPERATIONS = 4
READING = 120.0  # seconds
STARTS = 3  # starts of the desired-state process before the command gives up
RESTARTS_LOOK = 0.2  # seconds between two checks of the number of starts
RUNS = 3  # runs of a tool, each bounded by the source: fetch an index, fetch a chart, render


class Failure(msgspec.Struct, frozen=True):
    """Why a source could not be read. `fatal`: the configuration cannot work, and a retry does not help.

    `file` and `line` are the place of the error in the repository, "" and 0 when it is not known.
    """

    message: str
    fatal: bool
    file: str = ""
    line: int = 0


class Reading(msgspec.Struct):
    """The full snapshots of the sources that could be read, and the failures of the others. Both by source name."""

    snapshots: dict[str, Change] = {}
    failures: dict[str, Failure] = {}


async def read(sources: Sequence[Source], surroundings: ClusterCapabilities | None = None) -> Reading:
    """Read every source in bounded time. `surroundings` are the cluster's inputs for rendering, if they are known."""
    reading = Reading()
    if not sources:
        return reading
    if trouble := git_trouble():
        message = f"no source can be read: {trouble}"
        return Reading(failures={source.name: Failure(message, fatal=False) for source in sources})
    process = DesiredStateClient()
    longest = NETWORK_OPERATIONS * max(source.timeout for source in sources) + READING
    longest += RUNS * max(source.toolLimits.timeout for source in sources)
    with tempfile.TemporaryDirectory(prefix="driftwatch-", ignore_cleanup_errors=True) as mirrors:
        await process.surround(surroundings or _unknown(sources))
        await process.start([source.spec(Path(mirrors)) for source in sources])
        try:
            async with asyncio.timeout(longest):
                await _listen_while_it_starts(process, len(sources), reading)
        except TimeoutError:
            for source in sources:
                if source.name not in reading.snapshots:
                    message = f"source {source.name}: it could not be read within {longest:g} s"
                    if process.restarts >= STARTS:
                        message = f"source {source.name}: the process that reads it cannot start: {process.trouble}"
                    reading.failures.setdefault(source.name, Failure(message, fatal=False))
        finally:
            await process.stop()
    return reading


def _unknown(sources: Sequence[Source]) -> ClusterCapabilities:
    """Inputs for rendering without a cluster. Sources that take variables from the cluster cannot be read."""
    missing = {
        source.name: "varsFrom names objects in the cluster, which is not asked here"
        for source in sources
        if any(not reference.optional for reference in source.varsFrom)
    }
    return ClusterCapabilities(missing=missing)


async def _listen_while_it_starts(process: DesiredStateClient, count: int, reading: Reading) -> None:
    """Listen until every source is read. Raises `TimeoutError` when the process was restarted `STARTS` times."""
    listening = asyncio.ensure_future(_listen(process, count, reading))
    try:
        while not (await asyncio.wait({listening}, timeout=RESTARTS_LOOK))[0]:
            if process.restarts >= STARTS:
                raise TimeoutError
        await listening
    finally:
        listening.cancel()


async def _listen(process: DesiredStateClient, count: int, reading: Reading) -> None:
    intake = ChangeAssembler()
    async for message in process.messages():
        if isinstance(message, FetchFailed):
            reading.failures.setdefault(
                message.source, Failure(message.error, message.fatal, message.file, message.line)
            )
        elif isinstance(message, Change) and (whole := intake.add(message)) is not None:
            reading.snapshots.setdefault(whole.source, whole)
        if len(reading.snapshots.keys() | reading.failures.keys()) == count:
            return
