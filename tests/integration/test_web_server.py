"""The HTTP endpoints: who may ask, over what, and that nobody who connects keeps others waiting."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest
import structlog
from driftwatch.config.server import Server
from driftwatch.metrics import exposition
from driftwatch.metrics.exposition import LINES, SAMPLES, Exposition, MetricsEndpoint
from driftwatch.metrics.fast_counter import FastCounter
from driftwatch.web import connections, server, tls
from driftwatch.web.server import WebServer
from driftwatch.web.tls import CertificateError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from tests.support.self_signed import write_pair

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])

TOKEN = "a-token-that-must-not-leak"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
PATIENCE = 20.0
IMMEDIATELY = 3.0


@asynccontextmanager
async def serving(registry: CollectorRegistry | None = None, **settings: object) -> AsyncIterator[WebServer]:
    web = WebServer(registry or CollectorRegistry(), list, Server(**settings))
    await web.start("127.0.0.1", 0)
    try:
        yield web
    finally:
        await web.stop()


async def ask(web: WebServer, path: str, token: str = "", context: ssl.SSLContext | None = None) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session,
        session.get(f"{web.scheme}://127.0.0.1:{web.port}{path}", headers=headers, ssl=context or True) as answer,
    ):
        return answer.status, await answer.text()


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  aiohttp has no event for its connections
            await asyncio.sleep(0.01)


def large() -> CollectorRegistry:
    """Several megabytes of metrics, which no socket's buffer takes."""
    registry = CollectorRegistry()
    gauge = Gauge("large", "Many long series.", ["number", "padding"], registry=registry)
    for number in range(3000):
        gauge.labels(str(number), "x" * 3000).set(number)
    return registry


# --- Token ---


async def test_metrics_need_the_token_and_probes_do_not(tmp_path: Path) -> None:
    """Without the token, or with another one, nothing is answered; the kubelet has none and is answered."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    async with serving(tokenFile=str(file)) as web:
        assert (await ask(web, "/metrics"))[0] == 401
        assert (await ask(web, "/metrics", TOKEN[:-1]))[0] == 401
        assert (await ask(web, "/nothing"))[0] == 401
        assert (await ask(web, "/metrics", TOKEN))[0] == 200
        assert (await ask(web, "/healthz"))[0] == 200
        assert (await ask(web, "/readyz"))[0] == 200


async def test_probes_can_need_the_token_too(tmp_path: Path) -> None:
    """With `openProbes: false` nobody is answered without it."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    async with serving(tokenFile=str(file), openProbes=False) as web:
        assert (await ask(web, "/healthz"))[0] == 401
        assert (await ask(web, "/readyz", TOKEN))[0] == 200


async def test_a_rotated_token_counts_at_once_and_a_missing_one_opens_nothing(tmp_path: Path) -> None:
    """The file is read for each request; while it is not there everybody is refused, which is logged once."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with structlog.testing.capture_logs() as logs:
        async with serving(tokenFile=str(file)) as web:
            file.write_text("another")
            assert (await ask(web, "/metrics", TOKEN))[0] == 401
            assert (await ask(web, "/metrics", "another"))[0] == 200
            file.unlink()
            assert (await ask(web, "/metrics", "another"))[0] == 503
            assert (await ask(web, "/metrics", TOKEN))[0] == 503
    [line] = logs
    assert str(file) in line["error"]
    assert TOKEN not in str(logs)


# --- TLS ---


def trusting(file: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(file))


async def test_a_renewed_certificate_is_served_without_a_restart(tmp_path: Path, monkeypatch) -> None:
    """New connections get the new one; a pair that does not fit is named, and the one before serves on."""
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.02)
    pair = tmp_path / "tls.crt", tmp_path / "tls.key"
    write_pair(*pair, "first")
    first = trusting(pair[0])
    with structlog.testing.capture_logs() as logs:
        async with serving(certificateFile=str(pair[0]), keyFile=str(pair[1])) as web:
            assert (await ask(web, "/healthz", context=first))[0] == 200
            with pytest.raises(aiohttp.ClientError):
                await ask(web, "/healthz")  # nobody trusts it unasked

            pair[1].write_text("no key")
            await eventually(lambda: any(line["event"] == "certificate cannot be used" for line in logs))
            assert (await ask(web, "/healthz", context=first))[0] == 200

            write_pair(*pair, "second")
            await eventually(lambda: any(line["event"] == "certificate renewed" for line in logs))
            assert (await ask(web, "/healthz", context=trusting(pair[0])))[0] == 200
            with pytest.raises(aiohttp.ClientError):
                await ask(web, "/healthz", context=first)


async def test_a_certificate_that_cannot_be_used_is_an_error_at_the_start(tmp_path: Path) -> None:
    """The error names both files and nothing of the key."""
    write_pair(tmp_path / "tls.crt", tmp_path / "other.key", "one")
    write_pair(tmp_path / "other.crt", tmp_path / "tls.key", "other")
    with pytest.raises(CertificateError, match=r"tls\.crt with key .*tls\.key cannot be used"):
        async with serving(certificateFile=str(tmp_path / "tls.crt"), keyFile=str(tmp_path / "tls.key")):
            pass


# --- Clients that are slow, or silent ---


async def test_f07_a_client_that_reads_nothing_is_given_up_and_holds_up_nobody(monkeypatch) -> None:
    """Its connection ends after a while; others are answered meanwhile."""
    monkeypatch.setattr(server, "SEND_SECONDS", 0.5)
    async with serving(large()) as web:
        with socket.create_connection(("127.0.0.1", web.port)) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            await eventually(lambda: len(web._runner.server.connections) == 1)
            assert (await ask(web, "/healthz"))[0] == 200
            await eventually(lambda: not web._runner.server.connections)


async def test_a_client_that_leaves_before_its_answer_is_no_error(caplog, monkeypatch) -> None:
    """Prometheus gives a scrape up after its timeout, just when the answer is ready: nothing is wrong with us."""
    async with serving() as web:

        async def answer(_accept: str) -> Exposition:
            for connection in web._runner.server.connections:
                connection.transport.close()  # as when the client's end has just been seen
            return Exposition(b"# EOF\n", "text/plain", 1)

        with monkeypatch.context() as patched:
            patched.setattr(web._metrics_endpoint, "answer", answer)
            with pytest.raises(aiohttp.ClientError):
                await ask(web, "/metrics")
        assert (await ask(web, "/metrics"))[0] == 200
    assert [record.message for record in caplog.records] == []


async def test_f07_a_client_that_asks_on_and_on_and_reads_nothing_is_given_up(monkeypatch) -> None:
    """What is refused takes room on its way, too: nothing waits for ever until it is taken."""
    monkeypatch.setattr(server, "SEND_SECONDS", 0.5)
    asked = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 2000
    async with serving() as web:
        web._listener._sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # its connections have it, too
        with socket.create_connection(("127.0.0.1", web.port)) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.settimeout(0)
            async with asyncio.timeout(PATIENCE):
                with contextlib.suppress(ConnectionError):
                    while True:
                        await asyncio.get_running_loop().sock_sendall(slow, asked)
            await eventually(lambda: not web._listener)


SILENT = {
    "nothing": b"",
    "half a head": b"GET /metrics HTT",
    "half a body": b"POST /hooks/shop HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    "an answered request": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
}


def descriptors() -> int:
    return psutil.Process().num_fds()


async def descriptors_before(web: WebServer, context: ssl.SSLContext | None = None) -> int:
    """How many there are with nobody connected; the event loop opens one of its own with the first connection."""
    await ask(web, "/healthz", context=context)
    await eventually(lambda: not web._listener)
    return descriptors()


@contextmanager
def silent_clients(port: int, number: int, said: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections that say no more than this."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(number)]
        for client in clients:
            with contextlib.suppress(ConnectionError):  # it has made room for a later one
                client.sendall(said)
        yield clients


@pytest.mark.parametrize("said", sorted(SILENT.keys() - {"half a body"}))  # for which aiohttp waits ten seconds
async def test_f07_silent_clients_are_given_up(monkeypatch, said: str) -> None:
    """Nobody needs their room: after a while they are gone all the same."""
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.5)
    async with serving() as web:
        before = await descriptors_before(web)
        with silent_clients(web.port, 3, SILENT[said]):
            await eventually(lambda: len(web._listener) == 3)
            await eventually(lambda: not web._listener and descriptors() <= before + 3)
            assert (await ask(web, "/healthz"))[0] == 200


@pytest.mark.parametrize("said", SILENT)
async def test_f07_silent_clients_make_room_at_once(monkeypatch, said: str) -> None:
    """However many they are, whoever asks is answered at once, and only so many have a descriptor of ours."""
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 20)
    async with serving() as web:
        before = await descriptors_before(web)
        with silent_clients(web.port, 60, SILENT[said]) as clients:
            await eventually(lambda: len(web._listener) == 20)
            async with asyncio.timeout(IMMEDIATELY):
                assert (await ask(web, "/healthz"))[0] == 200
            assert len(web._listener) <= 20
            await eventually(lambda: descriptors() <= before + len(clients) + 20)


async def test_f07_silent_tls_clients_make_room_at_once(tmp_path: Path, monkeypatch) -> None:
    """They count as soon as they are there, long before their handshake could be over."""
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 20)
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 300.0)
    pair = tmp_path / "tls.crt", tmp_path / "tls.key"
    write_pair(*pair, "first")
    async with serving(certificateFile=str(pair[0]), keyFile=str(pair[1])) as web:
        before = await descriptors_before(web, trusting(pair[0]))
        with silent_clients(web.port, 60) as clients:
            await eventually(lambda: len(web._listener) == 20)
            async with asyncio.timeout(IMMEDIATELY):
                assert (await ask(web, "/healthz", context=trusting(pair[0])))[0] == 200
            await eventually(lambda: descriptors() <= before + len(clients) + 20)
            began = asyncio.get_running_loop().time()
            await web.stop()
            assert asyncio.get_running_loop().time() - began < IMMEDIATELY
            await eventually(lambda: descriptors() < before + len(clients))


async def test_f07_who_is_being_served_is_not_given_up_for_others(monkeypatch) -> None:
    """It gets its answer; where all are being served, it is the newcomer who is turned away."""
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 2)
    async with serving() as web:
        go = asyncio.Event()

        async def answer(_accept: str) -> Exposition:
            await go.wait()
            return Exposition(b"# EOF\n", "text/plain", 1)

        monkeypatch.setattr(web._metrics_endpoint, "answer", answer)
        served = [asyncio.ensure_future(ask(web, "/metrics"))]
        await eventually(lambda: len(web._listener) == 1)
        with silent_clients(web.port, 10):
            await eventually(lambda: len(web._listener) == 2)
            served.append(asyncio.ensure_future(ask(web, "/metrics")))
            await eventually(lambda: sum(each.is_served for each in web._listener._open.values()) == 2)
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await ask(web, "/healthz")
            go.set()
            assert [await each for each in served] == [(200, "# EOF\n")] * 2
            assert (await ask(web, "/healthz"))[0] == 200


async def test_f07_a_silent_tls_client_is_given_up(tmp_path: Path, monkeypatch) -> None:
    """A handshake that does not go on ends."""
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 0.3)
    pair = tmp_path / "tls.crt", tmp_path / "tls.key"
    write_pair(*pair, "first")
    async with serving(certificateFile=str(pair[0]), keyFile=str(pair[1])) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        assert (await ask(web, "/healthz", context=trusting(pair[0])))[0] == 200


# --- The exposition ---


def mixed() -> CollectorRegistry:
    disable_created_metrics()  # as Metrics does
    registry = CollectorRegistry()
    counter = Counter("many", "More samples than one piece has.", ["number"], registry=registry)
    for number in range(SAMPLES * 3 + 1):
        counter.labels(f'"{number}\\').inc(exemplar={"object": "x"})
    histogram = Histogram("time_seconds", "Buckets.", ["kind"], registry=registry)
    for number in range(SAMPLES):
        histogram.labels(str(number)).observe(number / 10, {"object": f"ConfigMap a/{number}"})
    tally = FastCounter("tallied", "Whole numbers.", ["zone", "name"], registry)
    for number in range(LINES + 5):
        tally.labels("a\\b", f'"{number}"\n').inc(number)
    FastCounter("no_tally", "No series at all.", ["label"], registry)
    Gauge("empty", "No sample at all.", ["label"], registry=registry)
    return registry


@pytest.mark.parametrize(("accept", "whole"), [("", generate_latest), (OPENMETRICS, generate_openmetrics)])
async def test_pieces_make_the_answer_that_the_library_makes_as_a_whole(accept: str, whole: Callable) -> None:
    """In both formats, with exemplars, help and type once a family, and one end."""
    registry = mixed()
    assert (await MetricsEndpoint(registry).answer(accept)).body == whole(registry)


async def test_others_have_their_turn_between_pieces() -> None:
    """A scrape of many samples is many short turns of the event loop, not a long one."""
    registry, turns = mixed(), 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    await MetricsEndpoint(registry).answer("")
    task.cancel()
    assert turns >= SAMPLES * 15 // SAMPLES


async def test_many_who_scrape_at_once_get_what_was_so_when_they_asked() -> None:
    """Answers are shared by those who were there before they were begun, and by nobody else."""
    registry = mixed()
    gauge = Gauge("now", "What is so.", registry=registry)
    exporter = MetricsEndpoint(registry)
    early = [asyncio.ensure_future(exporter.answer("")) for _ in range(20)]
    await asyncio.sleep(0)
    gauge.set(7)
    late = [asyncio.ensure_future(exporter.answer("")) for _ in range(20)]
    answers = await asyncio.gather(*early, *late)
    assert all(b"\nnow 7.0\n" in answer.body for answer in answers[20:])
    assert len({answer.number for answer in answers}) == 2


async def test_a_storm_of_scrapes_leaves_the_loop_to_others(monkeypatch) -> None:
    """After each answer nothing is made for a while, in proportion to what it took."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(seconds)

    exporter = MetricsEndpoint(mixed())
    await exporter.answer("")
    monkeypatch.setattr(exposition.asyncio, "sleep", noted)
    began = asyncio.get_running_loop().time()
    await exporter.answer("")
    assert max(waits) > 0
    assert asyncio.get_running_loop().time() - began > max(waits)
