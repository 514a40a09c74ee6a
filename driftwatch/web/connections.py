"""Limits the number of connections. At the limit, a new connection replaces the one idle for longest.

Every client that reaches the port can connect and stay silent. With TLS, it can do so before HTTP timeouts apply. Each
connection takes a file descriptor. Without free descriptors, the daemon cannot write state, run Git or answer probes.
At the limit, the server therefore closes the connection that has waited longest without sending a whole request. A new
connection, for example a probe, is always accepted and served. A connection whose request is being served is never
closed. If all are being served, the new connection is closed.

The limiter accepts connections itself, because event loops report a connection only after its TLS handshake.
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
"""Timeout of the TLS handshake and of the TLS shutdown."""

MOST_CONNECTIONS = 256
"""More than Prometheus, probes and people need, and few enough for Linux's default limit of 1,024 descriptors."""

BACKLOG = 128
ACCEPT_PAUSE = 0.1  # seconds; without free descriptors, retrying immediately would keep a core busy
NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}  # names resolve to IPv6 addresses without IPv6, too


class ConnectionLimiter:
    """Listens on a port and gives each connection to a protocol from `http`. Uses TLS if `tls` is given."""

    def __init__(self, http: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None = None) -> None:
        self._http = http
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._open: dict[asyncio.Protocol, _Connection] = {}  # ordered: idle for longest first
        self.port = 0

    def __len__(self) -> int:
        """Number of open connections."""
        return len(self._open)

    async def listen(self, host: str, port: int) -> None:
        """Listen on every address of `host`. Raises `OSError` if an address cannot be used."""
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
        """Stop listening, and close connections whose TLS handshake is not finished."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for listening in self._sockets:
            listening.close()
        for connection in self._open.values():
            if connection.transport is None:
                connection.give_up()
        await asyncio.gather(*self._handshakes, return_exceptions=True)

    @contextmanager
    def serving(self, request: web.BaseRequest) -> Iterator[None]:
        """Protect the connection of a completely received request until its answer is sent."""
        connection = self._open.get(request.protocol)
        if connection is None:  # it was just closed or lost
            yield
            return
        connection.request = request
        try:
            yield
        finally:
            connection.request = None
            if self._open.pop(request.protocol, None) is not None:
                self._open[request.protocol] = connection  # it is idle from now on

    def forget(self, connection: "_Connection") -> None:
        """Remove a connection from the count."""
        self._open.pop(connection.http, None)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError:  # the client has already disconnected, or no descriptor is free
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            self._admit(accepted)
            # Yield, so that other tasks run and closed connections are released, however long the backlog is.
            await asyncio.sleep(0)

    def _admit(self, accepted: socket.socket) -> None:
        if len(self._open) >= MOST_CONNECTIONS and not self._make_room():
            accepted.close()
            return
        connection = _Connection(self, self._http(), accepted)
        self._open[connection.http] = connection
        handshake = asyncio.get_running_loop().create_task(self._handshake(connection, accepted))
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._handshakes.discard)

    def _make_room(self) -> bool:
        """Close the connection idle for longest. Returns False if there is none."""
        silent = next((each for each in self._open.values() if not each.is_served), None)
        if silent is None:
            return False
        self.forget(silent)
        silent.give_up()
        return True

    async def _handshake(self, connection: "_Connection", accepted: socket.socket) -> None:
        seconds = None if self._tls is None else HANDSHAKE_SECONDS
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=seconds,
            )
        except (OSError, RuntimeError):  # no TLS, or too late; uvloop raises RuntimeError if the client has left
            self.forget(connection)


class _Connection(asyncio.Protocol):
    """Connection of one client. Forwards to the protocol `http`."""

    def __init__(self, listener: ConnectionLimiter, http: asyncio.Protocol, accepted: socket.socket) -> None:
        self._listener = listener
        self._socket = accepted
        self.http = http
        self.transport: asyncio.Transport | None = None  # None until TLS has begun
        self.request: web.BaseRequest | None = None

    @property
    def is_served(self) -> bool:
        """Whether a whole request was received and is not answered yet."""
        return self.request is not None and self.request.content.is_eof()

    def give_up(self) -> None:
        """Close the connection in any state."""
        if self.transport is not None:
            self.transport.abort()
            return
        with contextlib.suppress(OSError):  # it is already closed
            self._socket.shutdown(socket.SHUT_RDWR)  # the event loop sees end of file and closes the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of `asyncio.Transport` but are not subclasses.
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
