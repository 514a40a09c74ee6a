"""The configuration is taken in again, whatever went wrong before, and the newest wins (h06)."""

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import orjson
import pytest
import structlog
import yarl
from driftwatch import sources as sources_module
from driftwatch.cli import run
from driftwatch.cluster.errors import ApiError, Status
from driftwatch.cluster.session import Response
from driftwatch.config import Config
from driftwatch.config.values import FOLDER
from driftwatch.daemon import Daemon
from driftwatch.desired import process, protocol
from driftwatch.desired.client import DesiredStateClient
from driftwatch.desired.protocol import Change, set_digest
from driftwatch.drift.desired_state import Declared
from driftwatch.metrics.registry import Metrics
from driftwatch.model import InvalidManifest, Manifest
from driftwatch.source_spec import SourceSpec

SOURCE = "sources:\n- name: apps\n  repository: git.example.com:apps.git\n"


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  what is awaited is another task's doing, of which nothing tells
            await asyncio.sleep(0.01)


# --- The task that looks at the file ---


class Taking:
    """A daemon that takes configurations in, or fails to."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.taken: list[float] = []
        self.fault: Exception | None = None

    async def reload(self, config: Config) -> None:
        if self.fault is not None:
            raise self.fault
        self.taken.append(config.drift.audit)

    def count(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("driftwatch_config_reloads_total", {"result": result}) or 0.0


@asynccontextmanager
async def looking(daemon: Any, file: Path) -> AsyncIterator[None]:
    task = asyncio.ensure_future(run._reload_on_change(daemon, file))
    await asyncio.sleep(0)  # it has begun: it knows the file as it is
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)


@pytest.mark.parametrize(
    "content",
    [
        f"{SOURCE}cluster: {{namespace: !!bool maybe}}\n",
        f"{SOURCE}drift: {{audit: !!timestamp soon}}\n",
        f"{SOURCE}state: {{directory: ~nobody-by-this-name/x}}\n",
        f"{SOURCE}drift: &a {{disabledRules: [*a]}}\n",
    ],
)
async def test_h06_the_reload_after_a_file_that_cannot_be_read_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """The mistake is logged and counted, and the mended file is taken in, by its change or by SIGHUP."""
    monkeypatch.setattr(run, "CONFIG_LOOK", 0.01)
    file, daemon = tmp_path / "driftwatch.yaml", Taking()
    file.write_text(SOURCE)
    with structlog.testing.capture_logs() as logs:
        async with looking(daemon, file):
            file.write_text(content)
            await until(lambda: daemon.count("failure") == 1)
            assert [line["event"] for line in logs] == [run.UNUSABLE]

            file.write_text(f"{SOURCE}drift: {{audit: 300s}}\n")
            await until(lambda: daemon.taken == [300.0])
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: daemon.taken == [300.0, 300.0])
    assert daemon.count("success") == 2


async def test_h06_the_reload_after_one_that_fails_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody foresaw is logged with its traceback and counted; SIGHUP works afterwards."""
    monkeypatch.setattr(run, "CONFIG_LOOK", 0.01)
    file, daemon = tmp_path / "driftwatch.yaml", Taking()
    file.write_text(SOURCE)
    daemon.fault = RuntimeError("nobody foresaw it")
    with structlog.testing.capture_logs() as logs:
        async with looking(daemon, file):
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: daemon.count("failure") == 1)
            [line] = logs
            assert (line["log_level"], line["exc_info"]) == ("error", True)

            daemon.fault = None
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: daemon.taken)
    assert daemon.count("success") == 1


# --- What the daemon does with it ---


class Cluster:
    """A session to an API server that answers what the start asks for; `slow` is awaited before each /version."""

    server = "https://fake"

    def __init__(self) -> None:
        self.slow: Callable[[], Awaitable[object]] | None = None

    def url(self, path: str, query: str = "") -> yarl.URL:
        return yarl.URL(f"{self.server}{path}?{query}", encoded=True)

    async def request(self, _: str, url: yarl.URL, **__: Any) -> Response:
        match url.path:
            case "/api" | "/apis":
                return Response(200, orjson.dumps({"kind": "APIGroupDiscoveryList", "items": []}), {})
            case "/api/v1/namespaces/kube-system":
                return Response(200, b'{"metadata": {"uid": "uid-1"}}', {})
            case "/version":
                if self.slow is not None:
                    await self.slow()
                return Response(200, b'{"gitVersion": "v1.36.3"}', {})
        raise ApiError(404, Status(404, "NotFound"))

    async def keep_warm(self) -> None:
        await asyncio.Event().wait()


class Sources:
    """What the desired-state process is told; it has none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[list[str]] = []  # at each start and each change: name and path of every source

        async def hear(process: DesiredStateClient, *_: object) -> None:
            self.told.append([f"{spec.name}:{spec.path}" for spec in process._watched.sources])

        async def messages(_: DesiredStateClient) -> AsyncIterator[Any]:
            await asyncio.Event().wait()
            yield

        monkeypatch.setattr(DesiredStateClient, "_spawn", hear)
        monkeypatch.setattr(DesiredStateClient, "_tell", hear)
        monkeypatch.setattr(DesiredStateClient, "messages", messages)


def config_of(folder: Path, *sources: str, **sections: Any) -> Config:
    entries = [
        {"name": name, "path": path, "repository": f"{folder}/git"}
        for name, _, path in (source.partition(":") for source in sources)
    ]
    return Config.model_validate(
        {"server": {"listen": "127.0.0.1:0"}, "sources": entries, **sections}, context={FOLDER: folder}
    )


@asynccontextmanager
async def running(cluster: Cluster, config: Config, folder: Path) -> AsyncIterator[Daemon]:
    stop = asyncio.Event()
    daemon = Daemon(config, cluster, folder / "state", Metrics())  # type: ignore[arg-type]
    task = asyncio.ensure_future(daemon.run(stop))
    try:
        yield daemon
        assert not task.done(), task
    finally:
        stop.set()
        await asyncio.wait([task])


async def test_h06_a_reload_during_a_slow_start_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start waits for the API server with old sources; when it goes on, nothing of them is followed."""
    sources, cluster = Sources(monkeypatch), Cluster()
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def first_is_slow() -> None:
        cluster.slow = None
        waiting.set()
        await go_on.wait()

    cluster.slow = first_is_slow
    async with running(cluster, config_of(tmp_path, "old:a", "both:a"), tmp_path) as daemon:
        await asyncio.wait_for(waiting.wait(), 10)
        reload = asyncio.ensure_future(daemon.reload(config_of(tmp_path, "both:b", "new:b")))
        await asyncio.sleep(0.05)  # time enough for the reload to overtake the start, if it can
        go_on.set()
        await asyncio.wait_for(reload, 10)
        await until(lambda: daemon._desired._watched.sources and sources.told)
        await asyncio.sleep(0.05)

        assert {tuple(each) for each in sources.told if each} == {("both:b", "new:b")}
        assert daemon._sources.names == ["both", "new"]


async def test_h06_the_newest_of_reloads_that_overtake_each_other_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow reload that ends after a quick one leaves the sources of the quick one, which was the later."""
    sources, cluster = Sources(monkeypatch), Cluster()
    async with running(cluster, config_of(tmp_path, "a:1"), tmp_path) as daemon:
        await until(lambda: ["a:1"] in sources.told)
        go_on = asyncio.Event()
        cluster.slow = go_on.wait
        reloads = [asyncio.ensure_future(daemon.reload(config_of(tmp_path, f"a:{n}"))) for n in (2, 3)]
        await asyncio.sleep(0.05)
        cluster.slow = None
        go_on.set()
        await asyncio.wait_for(asyncio.gather(*reloads), 10)

        assert sources.told[-1] == ["a:3"]
        assert ["a:2"] not in sources.told


class Pipe:
    """The desired-state process, as its client sees it: what it says comes from the test."""

    pid, returncode, stdin = -1, 0, None

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stdout = asyncio.StreamReader()

        async def spawn(client: Any) -> None:
            client._process = self

        monkeypatch.setattr(DesiredStateClient, "_spawn", spawn)

    async def wait(self) -> int:
        return 0

    async def say(self, client: DesiredStateClient, name: str, generation: int) -> None:
        """Send a whole snapshot of source `a` with one object, and wait until it is read."""
        manifest = Manifest("", "v1", "ConfigMap", "shop", name, b"{}", "abc", "a.yaml", 1)
        whole = Change("a", name, full=True, last=True, upserts=[manifest], digest=set_digest(["abc"]))
        whole.generation = generation
        await until(lambda: client._process is self)
        self.stdout.feed_data(protocol.encode(whole))
        await until(lambda: not self.stdout._buffer)  # type: ignore[attr-defined]


def objects(daemon: Daemon) -> list[str]:
    """The objects that source `a` declares."""
    return [manifest.name for manifest in daemon._declared.manifests("a").values()]


async def test_h02_nothing_of_an_old_path_is_taken_in_while_the_reload_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole snapshot of the old path that arrives while the reload asks the cluster is dropped."""
    cluster, pipe = Cluster(), Pipe(monkeypatch)
    async with running(cluster, config_of(tmp_path, "a:old"), tmp_path) as daemon:
        client = daemon._desired
        await until(lambda: client._process)
        old = client._generations["a"]
        await pipe.say(client, "before", old)
        waiting, go_on = asyncio.Event(), asyncio.Event()

        async def is_slow() -> None:
            waiting.set()
            await go_on.wait()

        cluster.slow = is_slow
        reload = asyncio.ensure_future(daemon.reload(config_of(tmp_path, "a:new")))
        await asyncio.wait_for(waiting.wait(), 10)
        await pipe.say(client, "stale", old)
        assert objects(daemon) == ["before"]

        go_on.set()
        await asyncio.wait_for(reload, 10)
        await pipe.say(client, "after", client._generations["a"])
        assert objects(daemon) == ["after"]


async def test_h02_a_source_that_leaves_and_comes_back_is_followed_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its snapshot was forgotten here, so that the process must send it again, though its specification is the same."""
    started: list[int] = []

    class Follower:
        def __init__(self, spec: SourceSpec, _outlet: object, _old: object, _inputs: object, generation: int) -> None:
            self.spec, self.generation = spec, generation

        def start(self) -> None:
            started.append(self.generation)

        def stop(self) -> None:
            pass

    monkeypatch.setattr(process, "Follower", Follower)
    child, client = process.Process(io.BytesIO(), io.BytesIO()), DesiredStateClient()
    [spec] = [source.spec(tmp_path) for source in config_of(tmp_path, "a:1").sources]
    for sources in ([spec], [], [spec]):
        client.expect(sources)
        if sources:  # the process is told of the last only: the second was overtaken
            await client.watch(sources)
            child._watch(client._watched.sources, client._watched.generations)
    assert len(started) == 2


def test_h02_nothing_is_left_of_a_source_that_has_gone() -> None:
    """Half a snapshot, and manifests that were named, are forgotten with the source: it comes back as a new one."""
    declared = Declared(["a"], lambda _kind: True)
    sources = sources_module.Sources(
        DesiredStateClient(), declared, *[Mock() for _ in range(3)], Metrics(), None, Mock()
    )
    mistake = InvalidManifest("a.yaml", 1, "no kind")
    half = Change("a", "c1", full=True, last=False, upserts=[], sequence=1)
    rest = Change("a", "c1", full=True, last=True, first=False, sequence=1, invalid=[mistake], digest=set_digest([]))
    sources.follow(["a"])
    sources.on_message(half)
    sources.follow([])
    sources.follow(["a"])
    sources.on_message(rest)
    assert list(sources.missing()) == ["source a: no snapshot yet"]
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            sources.on_message(Change("a", "c1", full=True, last=True, invalid=[mistake], digest=set_digest([])))
            sources.follow([])
            sources.follow(["a"])
    assert [line["event"] for line in logs].count("invalid manifest") == 2


@pytest.mark.parametrize("where", ["_pruner.configure", "_hooks.follow", "_sync.on_policies", "_render_inputs.follow"])
async def test_h06_a_reload_that_fails_in_the_middle_is_repaired_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Wherever the exception came from, the next reload, also of the same file, reaches every part."""
    sources, cluster = Sources(monkeypatch), Cluster()
    async with running(cluster, config_of(tmp_path, "a:1"), tmp_path) as daemon:
        await until(lambda: ["a:1"] in sources.told)
        part, name = where.split(".")
        wanted = config_of(tmp_path, "a:2", "b:2", drift={"audit": "5s", "maxSnooze": "7s"})
        with monkeypatch.context() as broken:
            broken.setattr(getattr(daemon, part), name, broken_part)
            with pytest.raises(RuntimeError, match="broken"):
                await daemon.reload(wanted)

        await daemon.reload(wanted)

        assert sources.told[-1] == ["a:2", "b:2"]
        assert (daemon._audit.period, daemon._schedule.longest_snooze) == (5.0, 7.0)
        assert set(daemon._hooks._sources) == {"a", "b"}
        assert daemon._sync._policies.sources == ["a", "b"]
        assert daemon._pruner._policies is daemon._sync._policies


def broken_part(*_: object) -> None:
    raise RuntimeError("broken")
