"""A minimal API client for the probe and the competing processes: no retries, no code of driftwatch.

The measuring code must not share code with the measured code. Otherwise both could be slow or wrong in the same way.
"""

import base64
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
import orjson
import yaml
import yarl

KEEPALIVE = 75.0  # seconds; kube-apiserver closes after 90


class Refused(Exception):
    """The API server answered 400 or more."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(f"HTTP {code}: {words[:500]}")
        self.code = code


class Api:
    """One connection pool with the user agent `agent`."""

    def __init__(self, kubeconfig: Path, agent: str) -> None:
        self._server, context = _read(kubeconfig)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context, keepalive_timeout=KEEPALIVE),
            headers={"User-Agent": agent},
            timeout=aiohttp.ClientTimeout(total=60),
            read_bufsize=2**20,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    def url(self, path: str, **query: str) -> yarl.URL:
        """Absolute URL. Make it once for repeated requests."""
        return yarl.URL(f"{self._server}{path}{'?' + urlencode(query) if query else ''}", encoded=True)

    async def request(
        self, method: str, url: yarl.URL, body: bytes | None = None, content_type: str = "application/json"
    ) -> bytes:
        """Send one request and read the answer. Raises `Refused`."""
        async with self._http.request(method, url, data=body, headers={"Content-Type": content_type}) as answer:
            content = await answer.read()
            if answer.status >= 400:
                raise Refused(answer.status, content.decode(errors="replace"))
            return content

    async def version(self, path: str) -> str:
        """The current resourceVersion of a collection, to start a watch from."""
        page = orjson.loads(await self.request("GET", self.url(path, limit="1")))
        return str(page["metadata"]["resourceVersion"])

    async def watch(
        self, path: str, selector: str, version: str, opened: Callable[[], Awaitable[Any]]
    ) -> AsyncIterator[bytes]:
        """Yield the lines of a watch as they arrive. It lasts an hour. `opened` is awaited once, when it is open."""
        url = self.url(path, watch="true", labelSelector=selector, resourceVersion=version, timeoutSeconds="3600")
        async with self._http.get(url, timeout=aiohttp.ClientTimeout(total=None)) as answer:
            if answer.status != 200:
                raise Refused(answer.status, await answer.text())
            await opened()
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line


def _read(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    """Server and credentials of a kubeconfig with embedded certificates, like that of the local control plane."""
    content = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with tempfile.NamedTemporaryFile() as pair:  # the ssl module loads a client certificate only from a file
        for part in ("client-certificate-data", "client-key-data"):
            pair.write(base64.b64decode(user[part]))
        pair.flush()
        context.load_cert_chain(pair.name)
    return str(cluster["server"]), context
