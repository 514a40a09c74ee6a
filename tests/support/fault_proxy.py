"""A proxy between the real API server and its clients that makes happen what happens on the way.

It speaks TLS with a certificate of its own, passes requests on over TLS, and does to them, to their answers and to the
lines of watches what a test tells it to, at any time (`faults.py` has what it can do). Tokens are passed through; where
the kubeconfig has a client certificate instead, the proxy shows it to the API server.
"""

import asyncio
import base64
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.support.api_request import EVERYTHING, Request
from tests.support.authority import Authority
from tests.support.faults import Answer, Fault, Injection, Severed, Stream, reset
from tests.support.http_wire import LONGEST_HEAD, Head, is_chunked, read_body, read_head, read_lines
from tests.support.loop_thread import LoopThread
from tests.support.waiting import until

HANDSHAKE_SECONDS = 10.0


class Door(Enum):
    """What becomes of new connections."""

    OPEN = auto()
    REFUSED = auto()
    NO_HANDSHAKE = auto()  # accepted, and reset when the client begins to speak TLS
    WRONG_CERTIFICATE = auto()  # of an authority that nobody trusts
    SILENT = auto()  # accepted, and never a word


class FaultProxy:
    """The proxy, in a thread of its own. `kubeconfig` is the file for its clients; `close` it at the end."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._lead_to(cluster, user)
        self._authority = Authority(folder / "authority")
        self._stranger = Authority(folder / "stranger")
        self._door = Door.OPEN
        self._injections: list[Injection] = []
        self._connections: set[Connection] = set()
        self._serving: set[asyncio.Task[None]] = set()  # also when nothing is accepted any more
        self._socket = _listening()
        self._socket.setblocking(False)  # noqa: FBT003
        self._thread = LoopThread("fault proxy")
        self._do = self._thread.do
        self._accepting = self._do(self._start_accepting)
        self.server = f"https://127.0.0.1:{self._socket.getsockname()[1]}"
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(self._kubeconfig(user, kubeconfig.parent)))

    def _lead_to(self, cluster: dict[str, Any], user: dict[str, Any]) -> None:
        address = urlsplit(cluster["server"])
        assert address.hostname
        self._upstream = address.hostname, address.port or 443
        self._to_upstream = _client_context(cluster, user, self._folder)

    def _kubeconfig(self, user: dict[str, Any], folder: Path) -> dict[str, Any]:
        passed = {name: user[name] for name in ("token", "tokenFile") if name in user}
        if "tokenFile" in passed:
            passed["tokenFile"] = str(folder / passed["tokenFile"])
        authority = base64.b64encode(self._authority.certificate.read_bytes()).decode()
        cluster = {"server": self.server, "certificate-authority-data": authority}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": cluster}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "users": [{"name": "proxy", "user": passed}],
        }

    def close(self) -> None:
        """End every connection, and the thread."""
        self.door = Door.OPEN
        self._thread.end()
        self._socket.close()

    # --- What a test does ---

    def inject(
        self, fault: Fault, where: Callable[[Request], bool] = EVERYTHING, *, times: int | None = None
    ) -> Injection:
        """Switch a fault on, for the next `times` occasions or until it is lifted. Open watches have it at once."""
        injection = Injection(fault, where, times)

        async def switch_on() -> None:
            self._injections.append(injection)
            for connection in list(self._connections):
                if connection.stream is not None:
                    await connection.opened(connection.stream, [injection])

        self._do(switch_on)
        return injection

    def lift(self, injection: Injection) -> None:
        """Switch a fault off; what it held goes on."""

        async def switch_off() -> None:
            if injection in self._injections:
                self._injections.remove(injection)
            injection.left = 0
            injection.fault.lifted.set()

        self._do(switch_off)

    @contextmanager
    def fault(
        self, fault: Fault, where: Callable[[Request], bool] = EVERYTHING, *, times: int | None = None
    ) -> Iterator[Injection]:
        """Have a fault for as long as the block."""
        injection = self.inject(fault, where, times=times)
        try:
            yield injection
        finally:
            self.lift(injection)

    def lead_to(self, kubeconfig: Path) -> None:
        """Be the proxy of another API server, and cut what is open: a cluster that was put back to a backup."""
        config = yaml.safe_load(kubeconfig.read_text())
        self._lead_to(config["clusters"][0]["cluster"], config["users"][0]["user"])
        self.cut()

    @property
    def door(self) -> Door:
        """What becomes of new connections; those that are open stay, unless they are cut."""
        return self._door

    @door.setter
    def door(self, door: Door) -> None:
        async def change() -> None:
            before, self._door = self._door, door
            if door is Door.REFUSED and before is not Door.REFUSED:
                self._accepting.cancel()
                # Linux refuses connections to a listening socket that was shut down, and keeps its port.
                self._socket.shutdown(socket.SHUT_RD)
            elif before is Door.REFUSED and door is not Door.REFUSED:
                self._socket.listen(128)
                self._accepting = await self._start_accepting()

        self._do(change)

    def cut(self) -> int:
        """Reset every connection that is open. Returns how many there were."""

        async def cut_all() -> int:
            connections = list(self._connections)
            for connection in connections:
                connection.sever()
            return len(connections)

        return self._do(cut_all)

    def open_watches(self, where: Callable[[Request], bool] = EVERYTHING) -> list[Request]:
        """The watches that are open."""
        streams = [connection.stream for connection in list(self._connections)]
        return [stream.request for stream in streams if stream is not None and where(stream.request)]

    def wait_hits(self, injection: Injection, count: int = 1) -> None:
        """Wait until a fault has happened this often."""
        until(lambda: injection.hits >= count, f"{type(injection.fault).__name__} happens {count} times")

    # --- What it does ---

    def matching(self, hook: str, request: Request, line: bytes = b"") -> list[Injection]:
        """The faults that are for this moment of a request; each is counted."""
        return [injection for injection in self._injections if injection.takes(hook, request, line)]

    @property
    def active(self) -> list[Injection]:
        """Every fault that is switched on."""
        return list(self._injections)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to the API server."""
        host, port = self._upstream
        return await asyncio.open_connection(host, port, ssl=self._to_upstream, limit=LONGEST_HEAD)

    async def _start_accepting(self) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(self._socket)
            task = loop.create_task(self._serve(accepted))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if self._door is Door.SILENT:
            with accepted:
                await asyncio.Event().wait()
        if self._door is Door.NO_HANDSHAKE:
            with accepted:
                await loop.sock_recv(accepted, 1)
                return  # what is left unread makes the close a reset
        authority = self._stranger if self._door is Door.WRONG_CERTIFICATE else self._authority
        reader = asyncio.StreamReader(limit=LONGEST_HEAD)
        protocol = asyncio.StreamReaderProtocol(reader)
        context = authority.server_context
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, accepted, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except OSError:  # the client does not like the certificate, or has gone
            return
        connection = Connection(self, reader, asyncio.StreamWriter(transport, protocol, reader, loop))
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)


class Connection:
    """One client's connection, and the one to the API server that belongs to it. `stream` is its open watch."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer
        self._api: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.stream: Stream | None = None

    def sever(self) -> None:
        """Reset it."""
        reset(self._writer)

    async def serve(self) -> None:
        """Pass requests on until one of the two sides has gone."""
        gone = asyncio.ensure_future(self._writer.wait_closed())
        serving = asyncio.ensure_future(self._exchanges())
        try:
            await asyncio.wait({gone, serving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
            gone.cancel()
            await asyncio.gather(gone, serving, return_exceptions=True)
            self._writer.close()
            self._drop_api()

    async def _exchanges(self) -> None:
        try:
            while (head := await read_head(self._reader)) is not None:
                await self._exchange(Request.of(head, await read_body(self._reader, head, answer=False)))
        except (Severed, OSError, asyncio.IncompleteReadError):
            self.sever()

    async def _exchange(self, request: Request) -> None:
        for injection in self._proxy.matching("on_request", request):
            if (made := await injection.fault.on_request(request)) is not None:
                return await self._send(made)
        reader, writer = await self._connected()
        # Compressed lines could not be told apart.
        writer.write(request.head.without("Accept-Encoding").encode() + _body_on_the_wire(request))
        head = await read_head(reader)
        if head is None:
            raise Severed
        if request.verb == "watch" and is_chunked(head) and head.code == 200:
            return await self._relay(request, head, reader)
        answer = Answer(head, await read_body(reader, head, answer=True))
        for injection in self._proxy.matching("on_answer", request):
            await injection.fault.on_answer(answer)
        return await self._send(answer)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._api is None or self._api[0].at_eof() or self._api[1].is_closing():
            self._drop_api()
            self._api = await self._proxy.connect()
        return self._api

    def _drop_api(self) -> None:
        if self._api is not None:
            self._api[1].transport.abort()
            self._api = None

    async def _send(self, answer: Answer) -> None:
        head = answer.head.without("Transfer-Encoding", "Content-Length")
        if answer.head.code not in (204, 304):
            head.headers.append(("Content-Length", str(len(answer.body))))
        if answer.cut_at is None:
            self._writer.write(head.encode() + answer.body)
            await self._writer.drain()
            return
        self._writer.write(head.encode() + answer.body[: answer.cut_at])
        await self._writer.drain()
        await asyncio.sleep(0.05)  # a reset overtakes what is still to be sent
        raise Severed

    async def opened(self, stream: Stream, injections: list[Injection]) -> None:
        """Do to an open watch what these faults do to watches that open."""
        for injection in injections:
            if injection.takes("on_open", stream.request):
                await injection.fault.on_open(stream)

    async def _relay(self, request: Request, head: Head, reader: asyncio.StreamReader) -> None:
        stream = Stream(request, self._writer)
        self._writer.write(head.encode())
        self.stream = stream
        try:
            await self.opened(stream, self._proxy.active)
            passing = asyncio.ensure_future(self._pass_lines(stream, reader))
            ended = asyncio.ensure_future(stream.ended.wait())
            await _first(passing, ended)
        finally:
            self.stream = None
            self._drop_api()  # there may be more of the watch to come: the next request must not read it

    async def _pass_lines(self, stream: Stream, reader: asyncio.StreamReader) -> None:
        async for line in read_lines(reader):
            lines = [line]
            for injection in self._proxy.matching("on_line", stream.request, line):
                lines = [out for each in lines for out in await injection.fault.on_line(stream, each)]
            for each in lines:
                stream.send(each)
            await self._writer.drain()
        stream.end()


def _listening() -> socket.socket:
    """A listening socket that keeps its port through a shutdown: Linux takes away one that it has chosen itself."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    return socket.create_server(("127.0.0.1", port), backlog=128)


async def _first(*work: Awaitable[Any]) -> None:
    """Wait for the first to end, and have the others not go on."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _body_on_the_wire(request: Request) -> bytes:
    if not is_chunked(request.head):
        return request.body
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(request.body), request.body) if request.body else b"0\r\n\r\n"


def _client_context(cluster: dict[str, Any], user: dict[str, Any], folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if "client-certificate-data" in user:
        pair = folder / "client.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
        context.load_cert_chain(pair)
    return context


@contextmanager
def fault_proxy(kubeconfig: Path, folder: Path) -> Iterator[FaultProxy]:
    """A proxy for as long as the block."""
    proxy = FaultProxy(kubeconfig, folder)
    with contextlib.closing(proxy):
        yield proxy
