"""HTTP session to the API server.

The `kubernetes` package's requests, watch and models are not used. Its models drop unknown fields, and its watch loses
events.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp
import yarl

from driftwatch import __version__
from driftwatch.cluster.credentials import Credentials
from driftwatch.cluster.errors import UNAUTHORIZED, ApiError, Unreachable, api_error
from driftwatch.cluster.request_verbs import Observer, Verb, verb_of

REQUEST_TIMEOUT = 30.0
CONNECT_TIMEOUT = 10.0
KEEPALIVE = 75.0  # seconds; kube-apiserver closes a connection after 90 s idle
CLOSE_SECONDS = 1.0  # longest wait at the end for sockets to be closed; it takes about a millisecond
CLOSED = -1  # what `fileno` returns then


class Response:
    """A successful answer: HTTP status code, body and headers."""

    __slots__ = ("body", "code", "headers")

    def __init__(self, code: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.code = code
        self.body = body
        self.headers = headers


class Session:
    """Sends requests to one API server. Create it with `Session.open`, and call `close` at the end."""

    def __init__(self, credentials: Credentials, observer: Observer | None = None) -> None:
        self._credentials = credentials
        self.server = credentials.server
        self._observer = observer
        self._sockets: dict[socket.socket, int] = {}  # those that may be open, with their inodes
        connector = aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=KEEPALIVE,
            ssl=credentials.ssl,
            ttl_dns_cache=60,
            socket_factory=self._new_socket,
        )
        self._http = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, connect=CONNECT_TIMEOUT),
            headers={"User-Agent": f"driftwatch/{__version__}"},
            proxy=credentials.proxy,
            auto_decompress=True,
            read_bufsize=2**18,
        )

    @classmethod
    async def open(
        cls, kubeconfig: str | None = None, context: str | None = None, observer: Observer | None = None
    ) -> "Session":
        """Open a session with in-cluster credentials if no kubeconfig is given and they exist, else with a kubeconfig.

        Raises `CredentialsError`, which says what is missing and where it was searched for.
        """
        return cls(await Credentials.find(kubeconfig, context), observer)

    async def close(self) -> None:
        """Close every connection and cancel a running exec plugin."""
        await self._credentials.close()
        await self._http.close()
        # A TLS connection in use waits for the other side's close_notify, which may never come.
        for each in self._open_sockets():
            with contextlib.suppress(OSError):  # it is already closed
                each.shutdown(socket.SHUT_RDWR)
        # The transports close their sockets a few iterations of the event loop later. A loop that ends earlier leaves
        # them to the garbage collector, which logs warnings.
        ends = time.monotonic() + CLOSE_SECONDS
        while self._open_sockets() and time.monotonic() < ends:  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.005)

    def _new_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = address
        self._open_sockets()
        made = socket.socket(family, kind, protocol)
        self._sockets[made] = os.fstat(made.fileno()).st_ino
        return made

    def _open_sockets(self) -> list[socket.socket]:
        """Drop the sockets that are closed, and return the others.

        When a connection fails while it is made, uvloop closes the file descriptor and not the socket object
        (uvloop#653). The descriptor may be another file's by then: the object gives it up, and does not close it.
        """
        for each, inode in list(self._sockets.items()):
            if each.fileno() != CLOSED and not _is_file(each.fileno(), inode):
                each.detach()
            if each.fileno() == CLOSED:
                del self._sockets[each]
        return list(self._sockets)

    def url(self, path: str, query: str = "") -> yarl.URL:
        """Return the absolute URL of an API path, which must be percent-encoded."""
        return yarl.URL(f"{self.server}{path}{'?' + query if query else ''}", encoded=True)

    async def request(
        self,
        method: str,
        url: yarl.URL,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send a request and read the whole answer.

        Raises `ApiError` for a status of 300 or above except 304, and `Unreachable` without an answer.
        Redirects are not followed: they could send the body or the token to another host.
        After a 401, the credentials are renewed and the request is sent once more if they changed.
        """
        authorization = await self._credentials.headers()
        try:
            return await self._request(method, url, body, {**(headers or {}), **authorization})
        except ApiError as error:
            if error.code != UNAUTHORIZED or not await self._credentials.renew(authorization):
                raise
        authorization = await self._credentials.headers()
        return await self._request(method, url, body, {**(headers or {}), **authorization})

    async def _request(self, method: str, url: yarl.URL, body: bytes | None, headers: dict[str, str]) -> Response:
        began = time.monotonic()
        code: int | None = None
        try:
            async with self._http.request(method, url, data=body, headers=headers, allow_redirects=False) as answer:
                content = await answer.read()
                code = answer.status
                if code >= 300 and code != 304:  # noqa: PLR2004
                    raise api_error(code, content, answer.headers)
                return Response(code, content, answer.headers)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            code = 0
            raise Unreachable(f"{self.server}: {_reason(error)}") from error
        finally:
            if self._observer is not None and code is not None:  # None: the request was cancelled
                self._observer(verb_of(method, url, headers), code, time.monotonic() - began)

    @asynccontextmanager
    async def stream(self, url: yarl.URL, *, accept: str, read_timeout: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch and iterate over chunks of bytes as they arrive.

        Raises `ApiError` unless the status is 200, and `Unreachable` if nothing arrives for `read_timeout` seconds.
        """
        authorization = await self._credentials.headers()
        began, answered = time.monotonic(), False
        try:
            async with self._http.get(
                url,
                headers={"Accept": accept, **authorization},
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT, sock_read=read_timeout),
                allow_redirects=False,
            ) as answer:
                answered = True
                self._observe_watch(answer.status, began)
                if answer.status != 200:  # noqa: PLR2004
                    if answer.status == UNAUTHORIZED:
                        await self._credentials.renew(authorization)  # the reflector retries immediately
                    raise api_error(answer.status, await answer.read(), answer.headers)
                _propagate_close(answer)
                yield answer.content.iter_any()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if not answered:
                self._observe_watch(0, began)
            raise Unreachable(f"{self.server}: {_reason(error)}", silent=isinstance(error, TimeoutError)) from error

    def _observe_watch(self, code: int, began: float) -> None:
        if self._observer is not None:
            self._observer(Verb.WATCH, code, time.monotonic() - began)

    async def keep_warm(self, period: float = 25.0, report: Callable[[Exception | None], None] | None = None) -> None:
        """Request /livez every `period` seconds, so that the first heal after a quiet hour has an open connection."""
        url = self.url("/livez")
        while True:
            try:
                await self.request("GET", url)
                outcome: Exception | None = None
            except (ApiError, Unreachable) as error:
                outcome = error
            if report:
                report(outcome)
            await asyncio.sleep(period)


def _propagate_close(answer: aiohttp.ClientResponse) -> None:
    """Pass the loss of the connection to the reader of the body.

    aiohttp closes a connection with broken framing (garbage in place of a chunk length). It then stops the read
    timeout, and reports the error only to a reader of response headers. A reader of the body would wait forever.
    """
    protocol = answer.connection.protocol if answer.connection is not None else None
    closed = protocol.closed if protocol is not None else None
    content = answer.content

    def fail_reader(connection: asyncio.Future[None]) -> None:
        cause = None if connection.cancelled() else connection.exception()
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError(f"broken in the middle of an answer: {cause or 'closed'}"))

    if closed is not None:
        closed.add_done_callback(fail_reader)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def _is_file(descriptor: int, inode: int) -> bool:
    try:
        return os.fstat(descriptor).st_ino == inode
    except OSError:
        return False
