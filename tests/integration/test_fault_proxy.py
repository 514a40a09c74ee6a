"""The proxy of the fault tests does to requests and watches what it says, and nothing else."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from driftwatch.localcluster import LocalCluster

from tests.support import faults
from tests.support.api_request import Request, Where, lists, watches, writes
from tests.support.fault_proxy import Door, FaultProxy, fault_proxy
from tests.support.http_wire import Head
from tests.support.kubectl import Kubectl
from tests.support.live import Live
from tests.support.manifests import config_map, namespace_of
from tests.support.tcp_proxy import tcp_proxy

SOON = 20.0


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """A proxy as the administrator."""
    with fault_proxy(cluster.kubeconfig, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture
def there(live: Live, namespace: str) -> Iterator[str]:
    """A namespace that is there."""
    live.patch(namespace_of(namespace), namespace_of(namespace), manager="tests", kind="apply")
    yield namespace
    live.request("DELETE", live.path(namespace_of(namespace)))


class Client:
    """Lists and watches ConfigMaps of a namespace through the proxy."""

    def __init__(self, proxy: FaultProxy, namespace: str) -> None:
        cluster = yaml.safe_load(proxy.kubeconfig.read_text())["clusters"][0]["cluster"]
        self.context = ssl.create_default_context()
        self.context.load_verify_locations(cadata=_decoded(cluster["certificate-authority-data"]))
        self.http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.context))
        self.url = f"{proxy.server}/api/v1/namespaces/{namespace}/configmaps"

    async def list(self) -> tuple[int, dict[str, Any]]:
        """LIST. Returns the code and the answer."""
        async with asyncio.timeout(SOON), self.http.get(self.url) as answer:
            return answer.status, json.loads(await answer.read())

    async def watch(self) -> AsyncIterator[bytes]:
        """Lines of a WATCH from now on."""
        _, found = await self.list()
        version = found["metadata"]["resourceVersion"]
        query = f"?watch=true&resourceVersion={version}"
        async with self.http.get(self.url + query, timeout=aiohttp.ClientTimeout(SOON)) as answer:
            assert answer.status == 200
            yield b""
            async for line in answer.content:
                yield line


@pytest.fixture
async def client(proxy: FaultProxy, there: str) -> AsyncIterator[Client]:
    """A client of the proxy."""
    client = Client(proxy, there)
    yield client
    await client.http.close()
    await asyncio.sleep(0.05)  # a TLS connection is closed some turns of the loop later


def _decoded(data: str) -> str:
    return base64.b64decode(data).decode()


def _touch(live: Live, namespace: str, name: str) -> None:
    live.patch(config_map(name, namespace), config_map(name, namespace), manager="tests", kind="apply")


def _names(lines: list[bytes]) -> list[str]:
    return [json.loads(line)["object"]["metadata"]["name"] for line in lines]


async def _opened(client: Client) -> AsyncIterator[bytes]:
    watch = client.watch()
    assert await anext(watch) == b""
    return watch


@pytest.mark.parametrize(
    ("start", "verb", "resource", "namespace", "name"),
    [
        ("GET /api/v1/configmaps?limit=500 HTTP/1.1", "list", "configmaps", "", ""),
        ("GET /api/v1/namespaces/a/configmaps?watch=true HTTP/1.1", "watch", "configmaps", "a", ""),
        ("GET /api/v1/namespaces/a HTTP/1.1", "get", "namespaces", "", "a"),
        ("PATCH /apis/apps/v1/namespaces/a/deployments/b?force=true HTTP/1.1", "patch", "deployments", "a", "b"),
        ("DELETE /apis/apps/v1/namespaces/a/deployments/b/scale HTTP/1.1", "delete", "deployments", "a", "b"),
        ("GET /livez HTTP/1.1", "get", "", "", ""),
    ],
)
def test_a_request_is_told_by_its_first_line(start: str, verb: str, resource: str, namespace: str, name: str) -> None:
    """Verb, resource, namespace and name are what a fault is chosen by."""
    request = Request.of(Head(start), b"")

    assert (request.verb, request.resource, request.namespace, request.name) == (verb, resource, namespace, name)
    assert Where((verb,), (resource,))(request)
    assert not Where(("head",))(request)


async def test_without_a_fault_everything_passes(proxy: FaultProxy, client: Client, live: Live, there: str) -> None:
    """LIST, WATCH and a write go through, on the same connection as it likes."""
    watch = await _opened(client)
    async with client.http.post(client.url, json=config_map("posted", there)) as answer:
        assert answer.status == 201
    _touch(live, there, "touched")

    assert _names([await anext(watch), await anext(watch)]) == ["posted", "touched"]
    assert [request.resource for request in proxy.open_watches()] == ["configmaps"]
    await watch.aclose()
    code, found = await client.list()
    assert (code, {"posted", "touched"} <= {item["metadata"]["name"] for item in found["items"]}) == (200, True)


@pytest.mark.parametrize(("code", "after"), [(410, None), (429, 3), (500, None), (503, 1), (401, None)])
async def test_refusals_come_as_often_as_they_were_ordered(
    proxy: FaultProxy, client: Client, code: int, after: int | None
) -> None:
    """Twice the code and Retry-After, then the API server's own answer."""
    with proxy.fault(faults.Refuse(code, after), lists("configmaps"), times=2) as injection:
        for _ in range(2):
            async with client.http.get(client.url) as answer:
                assert (answer.status, answer.headers.get("Retry-After")) == (code, after and str(after))
                assert json.loads(await answer.read())["code"] == code
        assert (await client.list())[0] == 200
        assert injection.hits == 2


async def test_answers_are_lost_cut_and_halved(proxy: FaultProxy, client: Client, live: Live, there: str) -> None:
    """A lost request was never made, a lost answer was; half an answer shows, or looks whole."""
    with proxy.fault(faults.LoseRequest(), writes("configmaps")), pytest.raises(aiohttp.ClientError):
        await client.http.post(client.url, json=config_map("never", there))
    with proxy.fault(faults.LoseAnswer(), writes("configmaps")), pytest.raises(aiohttp.ClientError):
        await client.http.post(client.url, json=config_map("made", there))
    assert live.get(config_map("never", there)) is None
    assert live.get(config_map("made", there)) is not None

    with proxy.fault(faults.CutAnswer(), lists()), pytest.raises(aiohttp.ClientError):
        await client.list()
    with proxy.fault(faults.TruncateAnswer(), lists()), pytest.raises(json.JSONDecodeError):
        await client.list()


async def test_open_watches_are_cut_and_ended(proxy: FaultProxy, client: Client) -> None:
    """What a fault does to watches, it does to those that are open when it is switched on."""
    watch = await _opened(client)
    proxy.lift(proxy.inject(faults.Cut(), watches("configmaps"), times=1))
    with pytest.raises(aiohttp.ClientError):
        await anext(watch)

    watch = await _opened(client)
    proxy.lift(proxy.inject(faults.End(), watches("configmaps"), times=1))
    with pytest.raises(StopAsyncIteration):
        await anext(watch)

    watch = await _opened(client)
    proxy.lift(proxy.inject(faults.ErrorEvent(410), watches("configmaps"), times=1))
    assert json.loads(await anext(watch))["object"]["code"] == 410
    with pytest.raises(StopAsyncIteration):
        await anext(watch)

    watch = await _opened(client)
    proxy.lift(proxy.inject(faults.Garbage(b"{garbage\n"), watches("configmaps"), times=1))
    assert await anext(watch) == b"{garbage\n"


async def test_lines_are_halved_lost_doubled_and_swapped(
    proxy: FaultProxy, client: Client, live: Live, there: str
) -> None:
    """Of the events of a watch each becomes what was ordered."""
    watch = await _opened(client)
    with proxy.fault(faults.DropEvents(), watches("configmaps")) as injection:
        _touch(live, there, "lost")
        proxy.wait_hits(injection)
    with proxy.fault(faults.Duplicate(), watches("configmaps")) as injection:
        _touch(live, there, "twice")
        proxy.wait_hits(injection)
    with proxy.fault(faults.Reorder(), watches("configmaps")) as injection:
        _touch(live, there, "first")
        _touch(live, there, "second")
        proxy.wait_hits(injection, 2)
    assert _names([await anext(watch) for _ in range(4)]) == ["twice", "twice", "second", "first"]

    with proxy.fault(faults.HalfLine(), watches("configmaps"), times=1):
        _touch(live, there, "half")
        with pytest.raises(aiohttp.ClientError):
            await anext(watch)


async def test_stall_holds_and_a_dead_watch_stays_silent(
    proxy: FaultProxy, client: Client, live: Live, there: str
) -> None:
    """What was held comes when the fault is lifted; of a dead watch nothing comes any more."""
    watch = await _opened(client)
    with proxy.fault(faults.Stall(), watches("configmaps")) as injection:
        _touch(live, there, "held")
        proxy.wait_hits(injection)
        line = asyncio.ensure_future(anext(watch))
        assert not (await asyncio.wait({line}, timeout=0.3))[0]
    assert _names([await line]) == ["held"]

    with proxy.fault(faults.Stall(dead=True), watches("configmaps")):
        pass
    _touch(live, there, "never")
    line = asyncio.ensure_future(anext(watch))
    assert not (await asyncio.wait({line}, timeout=0.3))[0]
    line.cancel()


async def test_doors(proxy: FaultProxy, client: Client) -> None:
    """New connections are refused, not greeted, or shown a certificate of a stranger; then all is well again."""

    async def error() -> BaseException:
        proxy.cut()
        with pytest.raises(aiohttp.ClientError) as found:
            await client.list()
        return found.value

    try:
        proxy.door = Door.REFUSED
        refused = await error()
        assert isinstance(refused, aiohttp.ClientConnectorError)
        assert isinstance(refused.os_error, ConnectionRefusedError)
        proxy.door = Door.NO_HANDSHAKE
        assert not isinstance(await error(), aiohttp.ClientConnectorCertificateError)
        proxy.door = Door.WRONG_CERTIFICATE
        assert isinstance(await error(), aiohttp.ClientConnectorCertificateError)
    finally:
        proxy.door = Door.OPEN
    assert (await client.list())[0] == 200


def test_tcp_proxy_cuts_stalls_and_refuses(cluster: LocalCluster, kubectl: Kubectl, tmp_path: Path) -> None:
    """The real kubectl works through it with its client certificate, and not while it is told to let nobody through."""
    with tcp_proxy(cluster.kubeconfig, tmp_path / "proxy") as proxy:
        through = Kubectl(kubectl.program, proxy.kubeconfig, tmp_path)
        assert "default" in through("get", "namespaces").stdout

        proxy.refuse()
        assert "refused" in through("get", "namespaces", check=False).stderr
        proxy.accept()
        proxy.stall()
        assert "exceeded" in through("get", "namespaces", "--request-timeout=1s", check=False).stderr
        proxy.flow()
        assert "default" in through("get", "namespaces").stdout
