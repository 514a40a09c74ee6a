"""/metrics for Prometheus, /healthz and /readyz for the kubelet, /hooks for hosts of repositories, /api/v1/status."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from driftwatch.web.hooks import Hooks

Missing = Callable[[], list[str]]


class WebServer:
    """Serves on the daemon's event loop.

    `missing` says what keeps the daemon from being ready, nothing when it is; `status` gives the status as JSON.
    """

    def __init__(
        self, registry: CollectorRegistry, missing: Missing, hooks: Hooks, status: Callable[[], bytes]
    ) -> None:
        self._registry = registry
        self._missing = missing
        self._status = status
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_post("/hooks/{source}", hooks.serve)
        app.router.add_get("/api/v1/status", self._state)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handle_signals=False)
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises `OSError` when the address cannot be had."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening and end open requests."""
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

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
