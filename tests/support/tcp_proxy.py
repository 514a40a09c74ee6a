"""A proxy that knows no more than TCP: TLS goes through as it is, with client certificates and HTTP/2.

For faults of the network itself: connections that are cut, that are silent, that are refused, and slow ones.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from tests.support.faults import reset
from tests.support.loop_thread import LoopThread

CHUNK = 2**16


class TcpProxy:
    """The proxy, in a thread of its own. `kubeconfig` is the given one, with its address; `close` it at the end.

    `latency` is how many seconds each piece of data is late, both ways.
    """

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        address = urlsplit(config["clusters"][0]["cluster"]["server"])
        self._upstream = address.hostname, address.port
        self.latency = 0.0
        self._links: set[_Link] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._flowing = self._make_event()
        self._thread = LoopThread("tcp proxy")
        self._do = self._thread.do
        self._listener = self._do(lambda: asyncio.start_server(self._accepted, "127.0.0.1", 0))
        self._port: int = self._listener.sockets[0].getsockname()[1]
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self._port}"
        folder.mkdir(parents=True, exist_ok=True)
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(yaml.safe_dump(config))

    @staticmethod
    def _make_event() -> asyncio.Event:
        event = asyncio.Event()
        event.set()
        return event

    def close(self) -> None:
        """End every connection, and the thread."""

        async def refuse() -> None:
            self._listener.close()

        self._do(refuse)
        self._thread.end()

    def cut(self) -> int:
        """Reset every connection, on both sides. Returns how many there were."""

        async def cut_all() -> int:
            links = list(self._links)
            for link in links:
                link.sever()
            return len(links)

        return self._do(cut_all)

    def stall(self) -> None:
        """Let nothing through, and close nothing, until `flow`; new connections are accepted and silent."""

        async def hold() -> None:
            self._flowing.clear()

        self._do(hold)

    def flow(self) -> None:
        """Let everything through again, with what was held."""

        async def go_on() -> None:
            self._flowing.set()

        self._do(go_on)

    def refuse(self) -> None:
        """Refuse new connections until `accept`; those that are open stay."""

        async def close_door() -> None:
            self._listener.close()

        self._do(close_door)

    def accept(self) -> None:
        """Accept connections again, at the same address."""

        async def open_door() -> None:
            if not self._listener.is_serving():
                self._listener = await asyncio.start_server(self._accepted, "127.0.0.1", self._port)

        self._do(open_door)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection(*self._upstream)
        except OSError:
            reset(writer)
            return
        link = _Link(self, (reader, writer), upstream)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    async def let_through(self) -> None:
        """What a piece of data waits for before it goes on."""
        if self.latency:
            await asyncio.sleep(self.latency)
        await self._flowing.wait()


_Side = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """A client's connection and the one to the API server that belongs to it."""

    def __init__(self, proxy: TcpProxy, client: _Side, server: _Side) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server

    def sever(self) -> None:
        """Reset both."""
        reset(self._client[1])
        reset(self._server[1])

    async def run(self) -> None:
        """Copy both ways until both sides have ended."""
        try:
            await asyncio.gather(
                self._copy(self._client[0], self._server[1]), self._copy(self._server[0], self._client[1])
            )
        except OSError:
            self.sever()
        finally:
            self._client[1].close()
            self._server[1].close()

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK):
            await self._proxy.let_through()
            target.write(data)
            await target.drain()
        await self._proxy.let_through()
        with contextlib.suppress(OSError, RuntimeError):
            target.write_eof()


@contextmanager
def tcp_proxy(kubeconfig: Path, folder: Path) -> Iterator[TcpProxy]:
    """A proxy for as long as the block."""
    proxy = TcpProxy(kubeconfig, folder)
    with contextlib.closing(proxy):
        yield proxy
