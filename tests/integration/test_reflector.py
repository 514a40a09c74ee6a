"""A reflector by itself, between the proxy and real API servers: how it comes to know what there is, and silence."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest
from driftwatch.cluster import reflector as reflectors
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.reflector import Reflector, WatchEndReason
from driftwatch.cluster.session import Session
from driftwatch.drift.metadata import Content, ObjectHead
from driftwatch.localcluster import LocalCluster, configuration
from driftwatch.localcluster.layout import Component

from tests.support import faults
from tests.support.api_request import Request, lists, watches
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.live import Live
from tests.support.manifests import config_map, manifest, namespace_of

SOON = 20.0
MAPS = Resource("", "v1", "ConfigMap", "configmaps", namespaced=True, prefix="/api/v1")
SECRETS = Resource("", "v1", "Secret", "secrets", namespaced=True, prefix="/api/v1")
MINE = "example.com/mine"


class Witness:
    """What a reflector has told, as its listener: what is there by it, and each time that it said that this was all."""

    def __init__(self) -> None:
        self.there: dict[str, bytes] = {}
        self.complete: list[set[str]] = []
        self.deleted: list[str] = []
        self.restored = 0
        self.pages = 0
        self._seen: set[str] = set()

    def on_page(self, _resource: Resource, items: list[tuple[ObjectHead, Content]], *, first: bool) -> None:
        self.pages += 1
        if first:
            self._seen = set()
        for head, content in items:
            self._seen.add(head.metadata.name)
            self.there[head.metadata.name] = content()

    def on_listed(self, _resource: Resource, _version: int) -> None:
        self.complete.append(set(self._seen))

    def on_restored(self, _resource: Resource) -> None:
        self.restored += 1

    def on_event(self, _resource: Resource, change: str, head: ObjectHead, line: bytes) -> None:
        if change == "DELETED":
            self.deleted.append(head.metadata.name)
            self.there.pop(head.metadata.name, None)
        else:
            self.there[head.metadata.name] = line

    def on_state(self, _resource: Resource, *, up: bool, reason: str) -> None:
        """Take no notice."""

    def on_kind_gone(self, _resource: Resource) -> None:
        raise AssertionError("the kind is served")


async def _until(condition: Callable[[], object], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + SOON
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not so within {SOON:.0f} s: {what}"
        await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """What lies between the reflector and the API server."""
    with fault_proxy(cluster.kubeconfig, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


def _put(live: Live, namespace: str, *names: str) -> None:
    live.patch(namespace_of(namespace), namespace_of(namespace), manager="tests", kind="apply")
    for name in names:
        declared = config_map(name, namespace)
        declared["metadata"]["labels"] = {MINE: namespace}
        live.patch(declared, declared, manager="tests", kind="apply")


@pytest.fixture
def there(live: Live, namespace: str) -> Iterator[str]:
    """A namespace with three labelled ConfigMaps, and its name is the label's value."""
    _put(live, namespace, "one", "two", "three")
    yield namespace
    live.request("DELETE", live.path(namespace_of(namespace)))


ALL_OF_THEM = {"one", "two", "three"}


@asynccontextmanager
async def _running(
    kubeconfig: Path, witness: Witness, namespace: str, resource: Resource = MAPS, **options: object
) -> AsyncIterator[Reflector]:
    session = await Session.open(str(kubeconfig))
    reflector = Reflector(session, resource, witness, selector=f"{MINE}={namespace}", **options)  # type: ignore[arg-type]
    task = asyncio.ensure_future(reflector.run())
    try:
        yield reflector
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await session.close()


async def test_what_there_is_comes_as_a_watch(proxy: FaultProxy, live: Live, there: str) -> None:
    """No LIST is needed: the same watch sends what there is, and then what happens."""
    witness = Witness()
    with proxy.fault(faults.Refuse(500), lists()):
        async with _running(proxy.kubeconfig, witness, there) as reflector:
            await _until(lambda: witness.complete, "everything has come")
            assert witness.complete == [ALL_OF_THEM]
            assert (reflector.synced.is_set(), reflector.watching.is_set()) == (True, True)
            live.request("DELETE", live.path(config_map("two", there)))
            await _until(lambda: witness.deleted == ["two"], "the deletion is seen")

    assert reflector.endings == {}


async def test_secrets_come_without_their_values(proxy: FaultProxy, live: Live, there: str) -> None:
    """What there is of Secrets is their metadata, as what happens to them."""
    secret = manifest("v1", "Secret", "secret", there, stringData={"password": "hunter2"})
    secret["metadata"]["labels"] = {MINE: there}
    live.patch(secret, secret, manager="tests", kind="apply")
    witness = Witness()
    async with _running(proxy.kubeconfig, witness, there, SECRETS, metadata_only=True):
        await _until(lambda: witness.complete, "everything has come")

    assert witness.complete == [{"secret"}]
    assert b"PartialObjectMetadata" in witness.there["secret"]
    assert b"password" not in witness.there["secret"].replace(b'"f:password"', b"")


async def test_f01_cut_before_everything_has_come(proxy: FaultProxy, there: str) -> None:
    """While only some of the objects have come nothing is said to be all; after the second time they are listed."""
    witness = Witness()
    with proxy.fault(faults.CutAfter(2), watches("configmaps"), times=6) as injection:
        async with _running(proxy.kubeconfig, witness, there):
            await _until(lambda: witness.complete, "everything has come")

    assert injection.hits == 6
    assert witness.complete == [ALL_OF_THEM]


async def test_f01_ended_before_everything_has_come(proxy: FaultProxy, there: str) -> None:
    """A watch that ends cleanly in the middle of what there is has not said that this was all."""
    witness = Witness()
    where = _Initial("configmaps")
    with proxy.fault(faults.End(), where, times=1), proxy.fault(faults.Refuse(500), lists()):
        async with _running(proxy.kubeconfig, witness, there) as reflector:
            await _until(lambda: witness.complete, "everything has come")

    assert reflector.endings == {WatchEndReason.ENDED: 1}
    assert witness.complete == [ALL_OF_THEM]


class _Initial:
    """Watches of a resource that begin with what there is."""

    def __init__(self, resource: str) -> None:
        self._resource = resource

    def __call__(self, request: Request) -> bool:
        return request.initial and request.resource == self._resource


class _FromVersion:
    """Watches that go on from a version."""

    def __call__(self, request: Request) -> bool:
        return request.verb == "watch" and not request.initial


async def test_server_that_never_says_that_this_was_all(
    proxy: FaultProxy, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the end of what there is is not marked, it is listed."""
    monkeypatch.setattr(reflectors, "INITIAL_EVENTS_TIMEOUT", 0.5)
    witness = Witness()
    with proxy.fault(faults.DropEvents(lambda line: b"initial-events-end" in line), watches("configmaps")):
        async with _running(proxy.kubeconfig, witness, there):
            await _until(lambda: witness.complete, "everything has come")

    assert witness.complete == [ALL_OF_THEM]


@pytest.mark.parametrize("lists_only", [False, True])
async def test_f01_silent_stream_is_cut(proxy: FaultProxy, live: Live, there: str, lists_only: bool) -> None:
    """A stream from which nothing comes any more is given up, and what happened meanwhile is seen."""
    witness = Witness()
    with proxy.fault(faults.Refuse(422), _Initial("configmaps"), times=int(lists_only)):
        async with _running(proxy.kubeconfig, witness, there, read_timeout=1.0) as reflector:
            await _until(lambda: witness.complete, "everything has come")
            with proxy.fault(faults.Stall(dead=True), watches("configmaps")):
                live.request("DELETE", live.path(config_map("one", there)))
                await _until(lambda: reflector.endings[WatchEndReason.SILENT], "the silence is noticed")
            await _until(lambda: witness.deleted == ["one"], "the deletion is seen")

    assert len(witness.complete) == 1


@pytest.fixture
def without_watch_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control planes that are started have the feature off."""
    original = configuration.command

    def command(component: Component, *rest: object, **named: object) -> list[str]:
        found = original(component, *rest, **named)  # type: ignore[arg-type]
        return [*found, "--feature-gates=WatchList=false"] if component is Component.APISERVER else found

    monkeypatch.setattr(configuration, "command", command)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[LocalCluster]:
    """Another control plane, which has just been made: its versions are low."""
    other = LocalCluster(tmp_path / "other")
    other.up()
    yield other
    other.down(delete=True)


@pytest.mark.usefixtures("without_watch_list", "other")
async def test_server_without_such_watches(other: LocalCluster, tmp_path: Path, namespace: str) -> None:
    """Where the API server's WatchList feature is off, what there is is listed, and the next time at once."""
    live = Live(other.kubeconfig, tmp_path)
    _put(live, namespace, *ALL_OF_THEM)
    witness = Witness()
    with fault_proxy(other.kubeconfig, tmp_path / "proxy") as proxy:
        initial = proxy.inject(faults.Latency(0), _Initial("configmaps"))
        async with _running(proxy.kubeconfig, witness, namespace) as reflector:
            await _until(lambda: witness.complete, "everything has come")
            proxy.inject(faults.ErrorEvent(410), watches(), times=1)
            await _until(lambda: len(witness.complete) == 2, "it is listed again")
            await _until(proxy.open_watches, "it is watched again")
        assert reflector.endings == {WatchEndReason.GONE: 1}
        assert initial.hits == 1
    live.close()
    assert witness.complete == [ALL_OF_THEM, ALL_OF_THEM]


@contextmanager
def _older(
    cluster: LocalCluster, other: LocalCluster, live: Live, folder: Path, namespace: str
) -> Iterator[tuple[Live, FaultProxy]]:
    """A cluster with lower versions and less in it, and a proxy of the shared one that can be led there."""
    with closing(Live(other.kubeconfig, folder)) as past, fault_proxy(cluster.kubeconfig, folder / "proxy") as proxy:
        _put(past, namespace, "one")
        # So that the versions of the shared cluster are higher, whatever was done in the older one before.
        for number in range(400):
            live.patch(config_map("one", namespace), {"data": {"number": str(number)}})
        yield past, proxy


@pytest.mark.parametrize("lists_only", [False, True])
async def test_f02_versions_that_go_back(
    cluster: LocalCluster, other: LocalCluster, live: Live, tmp_path: Path, there: str, lists_only: bool
) -> None:
    """A cluster that is back at an older state is told from one that was away; what it has is all that there is.

    A cluster that is younger stands for it: its versions are lower, and less is there.
    """
    witness = Witness()
    with _older(cluster, other, live, tmp_path, there) as (past, proxy):
        proxy.inject(faults.Refuse(422), _Initial("configmaps"), times=int(lists_only))
        async with _running(proxy.kubeconfig, witness, there) as reflector:
            await _until(lambda: witness.complete and proxy.open_watches(), "everything has come, and it is watched")
            proxy.lead_to(other.kubeconfig)
            await _until(lambda: len(witness.complete) == 2, "it is listed again")
            assert (witness.restored, witness.complete[-1]) == (1, {"one"})

            past.request("DELETE", past.path(config_map("one", there)))
            await _until(lambda: witness.deleted == ["one"], "the watch goes on from there")
    assert reflector.endings[WatchEndReason.DEFECT] == 0


async def test_f02_versions_that_go_back_between_a_list_and_its_watch(
    cluster: LocalCluster, other: LocalCluster, live: Live, tmp_path: Path, there: str
) -> None:
    """A watch from a version that is still to come says nothing at all: it is its silence that tells."""
    witness = Witness()
    with _older(cluster, other, live, tmp_path, there) as (_, proxy):
        proxy.inject(faults.Refuse(422), _Initial("configmaps"), times=1)
        # The client itself asks once more for what a connection was closed on, and is then with the older cluster.
        held = proxy.inject(faults.Latency(30), _FromVersion(), times=1)
        async with _running(proxy.kubeconfig, witness, there, read_timeout=2.0) as reflector:
            await _until(lambda: witness.complete and held.hits, "everything has come, and the watch is on its way")
            proxy.lead_to(other.kubeconfig)
            await _until(proxy.open_watches, "the older cluster is watched")
            assert (witness.restored, reflector.endings.total()) == (0, 0)
            await _until(lambda: len(witness.complete) == 2, "it is listed again")
            assert (witness.restored, witness.complete[-1]) == (1, {"one"})
            assert reflector.endings == {WatchEndReason.SILENT: 1}
