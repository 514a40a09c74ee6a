"""What every source declares at its newest commit, read by the code that the daemon reads it with.

There is no state on disk to fall back on and a daemon may use its own, so mirrors live in a folder of the comparison's.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from driftwatch.cluster.surroundings import SurroundingsWatch
from driftwatch.config import Source
from driftwatch.desired.intake import Intake
from driftwatch.desired.link import DesiredProcess
from driftwatch.desired.protocol import Change, FetchFailed
from driftwatch.diff.findings import Trouble

# The desired-state process bounds each operation on the network by the source's timeout, and there are no more than
# these; the rest is for reading ten thousand manifests.
NETWORK_OPERATIONS = 4
READING = 120.0  # seconds
RUNS = 3  # of a tool, which the source bounds as well: fetch an index, fetch a chart, render


async def read(
    sources: Sequence[Source], mirrors: Path, surround: SurroundingsWatch
) -> tuple[dict[str, Change], list[Trouble]]:
    """The whole snapshot of each source that can be read, and what is wrong with the others; in bounded time."""
    process = DesiredProcess()
    longest = NETWORK_OPERATIONS * max(source.timeout for source in sources) + READING
    longest += RUNS * max(source.toolLimits.timeout for source in sources)
    snapshots: dict[str, Change] = {}
    failed: dict[str, str] = {}
    specs = [source.spec(mirrors) for source in sources]
    await process.surround(await surround.read(specs))
    await process.start(specs)
    try:
        async with asyncio.timeout(longest):
            await _listen(process, len(sources), snapshots, failed)
    except TimeoutError:
        for source in sources:
            if source.name not in snapshots:
                failed.setdefault(source.name, f"source {source.name}: it could not be read within {longest:g} s")
    finally:
        await process.stop()
    troubles = [Trouble(error, source) for source, error in failed.items()]
    for change in snapshots.values():
        troubles += [
            Trouble(f"invalid manifest: {mistake.reason}", change.source, mistake.file, mistake.line)
            for mistake in change.invalid
        ]
    return snapshots, troubles


async def _listen(process: DesiredProcess, count: int, snapshots: dict[str, Change], failed: dict[str, str]) -> None:
    intake = Intake()
    async for message in process.messages():
        if isinstance(message, FetchFailed):
            failed.setdefault(message.source, message.error)
        elif isinstance(message, Change) and (whole := intake.add(message)) is not None:
            snapshots.setdefault(whole.source, whole)
        if len(snapshots.keys() | failed.keys()) == count:
            return
