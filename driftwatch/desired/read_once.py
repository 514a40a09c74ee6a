"""What sources declare at their newest commit, read once by the code that the daemon reads it with.

It is for commands that run without a daemon, and perhaps beside one that uses its own mirrors: mirrors live in a folder
that is gone afterwards, and there is no state on disk to fall back on.
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

# The desired-state process bounds each operation on the network by the source's timeout, and there are no more than
# these; the rest is for reading ten thousand manifests.
NETWORK_OPERATIONS = 4
READING = 120.0  # seconds
STARTS = 3  # of the process that reads, after which it is given up
RESTARTS_LOOK = 0.2  # seconds between looks at how often it was started
RUNS = 3  # of a tool, which the source bounds as well: fetch an index, fetch a chart, render


class Failure(msgspec.Struct, frozen=True):
    """Why a source could not be read. `fatal`: as it is configured it cannot work, and trying again does not help.

    `file` and `line` are where in the repository it has to be mended, "" and 0 where that is not known.
    """

    message: str
    fatal: bool
    file: str = ""
    line: int = 0


class Reading(msgspec.Struct):
    """By name of the source: the whole snapshot of each that could be read, and what is wrong with the others."""

    snapshots: dict[str, Change] = {}
    failures: dict[str, Failure] = {}


async def read(sources: Sequence[Source], surroundings: ClusterCapabilities | None = None) -> Reading:
    """Read every source, in bounded time, with what the cluster gives to rendering where that is known."""
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
    """No cluster was asked: a source that takes variables from it cannot be read."""
    missing = {
        source.name: "varsFrom names objects in the cluster, which is not asked here"
        for source in sources
        if any(not reference.optional for reference in source.varsFrom)
    }
    return ClusterCapabilities(missing=missing)


async def _listen_while_it_starts(process: DesiredStateClient, count: int, reading: Reading) -> None:
    """Listen until all is read. Raises `TimeoutError` when the process ends again and again."""
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
