"""HTTP server for /metrics, /healthz, /readyz, /hooks and /api/v1/status, with optional TLS and token.

Every client that reaches the port can connect without sending or reading. Such connections are closed after a timeout,
and earlier if many others are open. No client can delay other clients or a heal.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry

from driftwatch.config.server import Server
from driftwatch.metrics.exposition import MetricsEndpoint
from driftwatch.secret import SecretRef
from driftwatch.web.auth import BearerAuth
from driftwatch.web.connections import ConnectionLimiter
from driftwatch.web.tls import Certificate
from driftwatch.web.webhooks import Webhooks

SEND_SECONDS = 10.0
"""Time limit for a client to receive an answer."""

IDLE_SECONDS = 30.0
"""Idle timeout of a connection: before its first request, within a request, and between two requests."""

Missing = Callable[[], list[str]]


class WebServer:
    """HTTP server on the daemon's event loop.

    `missing` returns the reasons why the daemon is not ready, empty if it is. `status` returns the status as JSON.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        missing: Missing,
        config: Server,
        hooks: Webhooks | None = None,
        status: Callable[[], bytes] | None = None,
    ) -> None:
        self._missing = missing
        self._status = status or (lambda: b"{}")
        self._metrics_endpoint = MetricsEndpoint(registry)
        self._certificate: Certificate | None = None
        if config.certificateFile and config.keyFile:
            self._certificate = Certificate(Path(config.certificateFile), Path(config.keyFile))
        self._auth = BearerAuth(SecretRef(file=config.tokenFile or ""), open_probes=config.openProbes)
        app = web.Application(middlewares=[self._bounded, self._checked])
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        if hooks is not None:
            app.router.add_post("/hooks/{source}", hooks.serve)
        if status is not None:
            app.router.add_get("/api/v1/status", self._state)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=1.0, handle_signals=False, keepalive_timeout=IDLE_SECONDS
        )
        self._listener = ConnectionLimiter(self._http, self._certificate.context if self._certificate else None)
        self._following: asyncio.Task[None] | None = None

    @property
    def scheme(self) -> str:
        """`https` if a certificate is configured, else `http`."""
        return "https" if self._certificate else "http"

    @property
    def port(self) -> int:
        """The port that it listens on, 0 before `start`."""
        return self._listener.port

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises `OSError` if the address cannot be used, `CertificateError` if the certificate cannot."""
        if self._certificate is not None:
            self._certificate.load()
        await self._runner.setup()
        try:
            await self._listener.listen(host, port)
        except OSError:
            await self._runner.cleanup()
            raise
        if self._certificate is not None:
            self._following = asyncio.get_running_loop().create_task(self._certificate.follow())

    async def stop(self) -> None:
        """Stop listening and end open requests."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        await self._listener.close()
        await self._runner.cleanup()

    def _http(self) -> asyncio.Protocol:
        """Create the HTTP protocol of a new connection."""
        assert self._runner.server is not None, "it listens only while it runs"  # noqa: S101
        return self._runner.server()

    @web.middleware
    async def _bounded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Send the answer with a time limit, so that a slow client is disconnected."""
        with self._listener.serving(request):
            try:
                response = await handler(request)
            except web.HTTPException as refusal:
                await _send(request, refusal)
                raise
            await _send(request, response)
            return response

    @web.middleware
    async def _checked(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        return await self._auth.check(request, handler)

    async def _metrics(self, request: web.Request) -> web.Response:
        answer = await self._metrics_endpoint.answer(request.headers.get("Accept", ""))
        return web.Response(body=answer.body, headers={"Content-Type": answer.content_type})

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _state(self, _request: web.Request) -> web.Response:
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        return web.Response(body=self._status(), headers=headers)

    async def _readyz(self, _request: web.Request) -> web.Response:
        missing = self._missing()
        if missing:
            return web.Response(status=503, text="not ready:\n" + "".join(f"- {what}\n" for what in missing))
        return web.Response(text="ok\n")


async def _send(request: web.Request, response: web.StreamResponse) -> None:
    transport = request.transport
    if transport is None or response.prepared:
        return
    # Without a write buffer, `write_eof` waits until the client has read the answer, and the timeout applies.
    transport.set_write_buffer_limits(0)
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        transport.abort()
    except ConnectionError:  # the client has disconnected
        pass
