"""What the daemon makes of snapshots that arrive late, incomplete or not at all (h02, h08)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from driftwatch.daemon import Daemon
from driftwatch.desired import protocol
from driftwatch.desired.client import ChangeAssembler, DesiredStateClient
from driftwatch.desired.protocol import Change, Fetched, FetchFailed, Frame, set_digest
from driftwatch.metrics.registry import Metrics
from driftwatch.model import Manifest
from driftwatch.source_spec import RenderSpec, SourceSpec
from driftwatch.status.schema import SourceStatus

from tests.unit.test_h_reload import Cluster, config_of, until

COMMIT = "c" * 40
SPEC = SourceSpec("shop", "/git", "main", "", 30.0, 20.0, "default", "/mirror")


def config_map(name: str) -> Manifest:
    digest = name.encode().hex().rjust(16, "0")
    return Manifest("", "v1", "ConfigMap", "shop", name, b"{}", digest, f"{name}.yaml", 1)


def change(*names: str, declared: tuple[str, ...] | None = None, **options: Any) -> Change:
    """A full snapshot with these objects, of which Git declares others where `declared` names them."""
    wanted = [config_map(name).digest for name in (names if declared is None else declared)]
    return Change("shop", COMMIT, full=True, last=True, upserts=list(map(config_map, names)),
                  digest=set_digest(wanted), **options)  # fmt: skip


class Told:
    """A daemon that hears what the test says in place of the desired-state process."""

    def __init__(self, daemon: Daemon, said: "asyncio.Queue[Frame]", resent: list[str]) -> None:
        self.daemon, self._said, self.resent = daemon, said, resent

    def say(self, *messages: Frame) -> None:
        for message in messages:
            self._said.put_nowait(message)

    def differences(self) -> float | None:
        sample = self.daemon.metrics.registry.get_sample_value
        return sample("driftwatch_snapshot_differences_total", {"source": "shop"})

    def status(self) -> SourceStatus:
        return self.daemon._status.status().sources[0]


@asynccontextmanager
async def told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Told]:
    said: asyncio.Queue[Frame] = asyncio.Queue()
    resent: list[str] = []

    async def nothing(*_: object) -> None:
        pass

    async def resend(_: DesiredStateClient, source: str) -> None:
        resent.append(source)

    async def messages(_: DesiredStateClient) -> AsyncIterator[Frame]:
        while True:
            yield await said.get()

    monkeypatch.setattr(DesiredStateClient, "_spawn", nothing)
    monkeypatch.setattr(DesiredStateClient, "messages", messages)
    monkeypatch.setattr(DesiredStateClient, "resend", resend)
    stop = asyncio.Event()
    daemon = Daemon(config_of(folder, "shop:"), Cluster(), folder / "state", Metrics())  # type: ignore[arg-type]
    task = asyncio.ensure_future(daemon.run(stop))
    try:
        yield Told(daemon, said, resent)
        assert not task.done(), task
    finally:
        stop.set()
        await asyncio.wait([task])


async def test_h08_a_snapshot_that_arrives_incomplete_is_said_and_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log, metric and status say so; the daemon asks for it, and the full snapshot ends it."""
    with structlog.testing.capture_logs() as logs:
        async with told(tmp_path, monkeypatch) as shop:
            shop.say(change("a", declared=("a", "b")), Fetched("shop", COMMIT, 1.0))
            await until(lambda: shop.resent)
            [line] = [line for line in logs if line["event"] == "snapshot differs from what Git declares"]
            assert (line["log_level"], line["source"], line["commit"]) == ("error", "shop", COMMIT[:12])
            assert shop.differences() == 1
            assert (
                shop.status().error == f"the snapshot of commit {COMMIT[:12]} arrived incomplete; it is asked for again"
            )
            assert shop.status().failingSince

            shop.say(change("a", "b"))
            await until(lambda: shop.status().error is None)
            assert shop.status().failingSince is None
            assert (shop.differences(), shop.resent) == (1, ["shop"])


async def test_h08_snapshots_that_differ_again_and_again_are_asked_for_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause grows with each; each is counted."""
    with structlog.testing.capture_logs() as logs:
        async with told(tmp_path, monkeypatch) as shop:
            shop.say(*[change("a", declared=()) for _ in range(6)])
            await until(lambda: shop.differences() == 6)
    lines = [line["next"] for line in logs if line["event"] == "snapshot differs from what Git declares"]
    pauses = [float(line.split()[-2]) for line in lines]
    assert pauses[-1] > 4 * pauses[0]


async def test_h08_a_commit_that_could_not_be_delivered_is_the_sources_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a reason of its own, in the metric and in the status, while the commit before is in force."""
    async with told(tmp_path, monkeypatch) as shop:
        sample = shop.daemon.metrics.registry.get_sample_value
        labels = {"source": "shop", "reason": "delivery"}
        assert sample("driftwatch_git_failures_total", labels) == 0
        words = "source shop: commit dddddddddddd is not in force, it cannot be handed over"
        shop.say(change("a"), FetchFailed("shop", words, COMMIT, fatal=False, time=1.0, reason="delivery"))
        await until(lambda: shop.status().error == words)
        assert sample("driftwatch_git_failures_total", labels) == 1
        assert shop.status().commit == COMMIT


async def test_h08_a_process_that_dies_between_chunks_leaves_nothing_of_its_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process numbers its changes from the beginning, as the one before did."""
    first = msgspec.structs.replace(change("ghost", sequence=1), last=False)
    whole = [
        msgspec.structs.replace(change("a", sequence=1), last=False),
        msgspec.structs.replace(change("b", sequence=1, declared=("a", "b")), first=False),
    ]
    async with told(tmp_path, monkeypatch) as shop:
        shop.say(first, *whole)
        await until(lambda: shop.status().commit)
        assert [each.name for each in shop.daemon._declared.manifests("shop").values()] == ["a", "b"]
        assert shop.differences() == 0


def test_h02_a_chunk_that_continues_another_change_is_dropped() -> None:
    """A change consists of chunks of one number, and begins with the first of them."""
    assembler = ChangeAssembler()
    begun = msgspec.structs.replace(change("a", sequence=1), last=False)
    assert assembler.add(begun) is None
    assert assembler.add(msgspec.structs.replace(change("ghost", sequence=2), first=False)) is None
    whole = assembler.add(msgspec.structs.replace(change("b", sequence=1), first=False))
    assert whole is not None
    assert [each.name for each in whole.upserts] == ["a", "b"]


CHANGES = {
    "path": {"path": "new"},
    "revision": {"revision": "v2"},
    "variables": {"render": RenderSpec(variables={"COLOUR": "blue"})},
}


@pytest.mark.parametrize("changed", CHANGES)
async def test_h02_what_was_read_before_a_source_changed_is_dropped(
    monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """Whole changes and chunks of one that were on their way, and what came of a fetch."""
    desired = DesiredStateClient()
    stream = asyncio.StreamReader()

    class Running:
        stdout = stream
        stdin = None

    async def spawn(_: DesiredStateClient) -> None:
        pass

    monkeypatch.setattr(DesiredStateClient, "_spawn", spawn)
    await desired.start([SPEC])
    desired._process = Running()  # type: ignore[assignment]
    old = [
        change("ghost", generation=1),
        msgspec.structs.replace(change("ghost", generation=1), last=False),
        Fetched("shop", COMMIT, 1.0, generation=1),
        FetchFailed("shop", "away", "", fatal=False, time=1.0, generation=1),
    ]
    for message in [*old, change("new", generation=2)]:
        stream.feed_data(protocol.encode(message))
    await desired.watch([msgspec.structs.replace(SPEC, **CHANGES[changed])])
    async with asyncio.timeout(10):
        heard = await anext(desired.messages())
    assert isinstance(heard, Change)
    assert [each.name for each in heard.upserts] == ["new"]
