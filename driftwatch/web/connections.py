"""Who is connected: a bounded number, of which those who say nothing make room for those who come.

Anybody who reaches the port can connect and be silent, with TLS before there is anything that HTTP could give up. Each
takes a file descriptor, and without one no state is written, no Git is asked and no probe is answered. So there is a
most, and at it the connection that has waited longest without sending a whole request goes: whoever comes, such as a
probe, gets in and is heard. One that is being served is never given up; where all are, the newcomer is.

We accept by ourselves, for the event loops tell of a connection only when its TLS handshake is over.
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from aiohttp import web

HANDSHAKE_SECONDS = 5.0
"""How long TLS may take to begin, and to end."""

MOST_CONNECTIONS = 256
"""Far more than Prometheus, probes and people need, and few enough for the 1,024 descriptors that Linux gives."""

BACKLOG = 128
ACCEPT_PAUSE = 0.1  # seconds; when we may open no more files, trying again at once would keep a core busy
NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}  # a machine without IPv6 has the address all the same


class ConnectionLimiter:
    """Listens on a port, and hands each connection to a protocol that `http` makes; with TLS where there is `tls`."""

    def __init__(self, http: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None = None) -> None:
        self._http = http
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._greetings: set[asyncio.Task[None]] = set()
        self._open: dict[asyncio.Protocol, _Connection] = {}  # who has waited longest comes first
        self.port = 0

    def __len__(self) -> int:
        """How many are connected."""
        return len(self._open)

    async def listen(self, host: str, port: int) -> None:
        """Listen on every address of `host`. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        trouble: OSError | None = None
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                self._sockets.append(_listening(family, address))
            except OSError as error:
                trouble = error
                if error.errno not in NO_SUCH_FAMILY:
                    break
        else:
            trouble = None if self._sockets else trouble
        if trouble is not None:
            await self.close()
            raise trouble
        self._accepting = [loop.create_task(self._accept(each)) for each in self._sockets]
        self.port = self._sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more, and give up who has not got through TLS yet."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for listening in self._sockets:
            listening.close()
        for connection in self._open.values():
            if connection.transport is None:
                connection.give_up()
        await asyncio.gather(*self._greetings, return_exceptions=True)

    @contextmanager
    def serving(self, request: web.BaseRequest) -> Iterator[None]:
        """Keep the connection of a request that has come whole, until its answer is sent."""
        connection = self._open.get(request.protocol)
        if connection is None:  # it has just been given up, or is lost
            yield
            return
        connection.request = request
        try:
            yield
        finally:
            connection.request = None
            if self._open.pop(request.protocol, None) is not None:
                self._open[request.protocol] = connection  # it waits from now on

    def forget(self, connection: "_Connection") -> None:
        """Count a connection no more."""
        self._open.pop(connection.http, None)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError:  # who came has left already, or we may open no more files
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            self._admit(accepted)
            # However many wait to be let in, others have their turn, and what was given up is closed.
            await asyncio.sleep(0)

    def _admit(self, accepted: socket.socket) -> None:
        if len(self._open) >= MOST_CONNECTIONS and not self._make_room():
            accepted.close()
            return
        connection = _Connection(self, self._http(), accepted)
        self._open[connection.http] = connection
        greeting = asyncio.get_running_loop().create_task(self._greet(connection, accepted))
        self._greetings.add(greeting)
        greeting.add_done_callback(self._greetings.discard)

    def _make_room(self) -> bool:
        """Give up who has waited longest. Returns whether there was anybody."""
        silent = next((each for each in self._open.values() if not each.is_served), None)
        if silent is None:
            return False
        self.forget(silent)
        silent.give_up()
        return True

    async def _greet(self, connection: "_Connection", accepted: socket.socket) -> None:
        seconds = None if self._tls is None else HANDSHAKE_SECONDS
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=seconds,
            )
        except (OSError, RuntimeError):  # no TLS, or not in time; uvloop's words for a client that has left
            self.forget(connection)


class _Connection(asyncio.Protocol):
    """One client, for whom `http` speaks."""

    def __init__(self, listener: ConnectionLimiter, http: asyncio.Protocol, accepted: socket.socket) -> None:
        self._listener = listener
        self._socket = accepted
        self.http = http
        self.transport: asyncio.Transport | None = None  # None until TLS has begun
        self.request: web.BaseRequest | None = None

    @property
    def is_served(self) -> bool:
        """Whether it has sent a whole request that is not answered yet."""
        return self.request is not None and self.request.content.is_eof()

    def give_up(self) -> None:
        """Close it, whatever it waits for."""
        if self.transport is not None:
            self.transport.abort()
            return
        with contextlib.suppress(OSError):  # it is closed already
            self._socket.shutdown(socket.SHUT_RDWR)  # the event loop sees its end, and closes it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No transport of uvloop is an `asyncio.Transport`, though each has all that one has.
        self.transport = cast("asyncio.Transport", transport)
        self.http.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.forget(self)
        if self.transport is not None:
            self.http.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.http.data_received(data)

    def eof_received(self) -> bool | None:
        return self.http.eof_received()

    def pause_writing(self) -> None:
        self.http.pause_writing()

    def resume_writing(self) -> None:
        self.http.resume_writing()


def _listening(family: int, address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
        made.bind(address)
        made.listen(BACKLOG)
        made.settimeout(0)
    except OSError:
        made.close()
        raise
    return made
