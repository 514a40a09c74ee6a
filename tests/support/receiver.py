"""A receiver of notifications on this machine, which answers as it is told to."""

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web


class Request(NamedTuple):
    """What was sent: path, headers and body."""

    path: str
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Receiver:
    """Takes everything; `answers` are the codes of the next answers, 200 when there are none left."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        self.text = "ok"
        self.held = threading.Event()
        self.held.set()
        self.url = ""

    @property
    def text_of_all(self) -> str:
        """All that was sent, for looking for what must not be there."""
        return "\n".join(f"{request.path}\n{request.headers}\n{request.body}" for request in self.requests)

    async def answer(self, request: web.Request) -> web.Response:
        """Note the request down, and answer."""
        body = await request.text()
        await asyncio.to_thread(self.held.wait)
        self.requests.append(Request(request.path_qs, dict(request.headers), body))
        code = self.answers.pop(0) if self.answers else 200
        return web.Response(status=code, text=self.text, headers=self.headers)


@contextmanager
def receiver(certificate: Path | None = None, key: Path | None = None) -> Iterator[Receiver]:
    """A receiver at `url`, by TLS if there is a certificate."""
    found = Receiver()
    loop = asyncio.new_event_loop()
    started = threading.Event()
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", found.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        found.url = f"{'https' if context else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        return runner

    def serve() -> None:
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.run_until_complete(asyncio.sleep(0.01))  # a transport is closed a turn of the loop later
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield found
    finally:
        found.held.set()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
