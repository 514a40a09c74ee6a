"""One HTTP session to the API server, with the credentials that the `kubernetes` package finds.

The package's own requests, watch and models are not used: its models drop fields that they do not know, and its watch
loses events. Its kubeconfig, exec plugin and in-cluster token handling is what everybody's cluster is tested with.
"""

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yarl
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import Configuration

from driftwatch import __version__
from driftwatch.cluster.errors import ApiError, CredentialsError, Unreachable, api_error
from driftwatch.cluster.requests import Observer, Verb, verb_of

REQUEST_TIMEOUT = 30.0
CONNECT_TIMEOUT = 10.0
KEEPALIVE = 75.0  # seconds; kube-apiserver closes a connection that was idle for 90 s
CREDENTIALS_REFRESH = 60.0  # seconds between looks at an exec plugin's expiry, as the kubernetes package does

_SERVICE_HOST = "KUBERNETES_SERVICE_HOST"


class Response:
    """A good answer: HTTP status code, body and headers."""

    __slots__ = ("body", "code", "headers")

    def __init__(self, code: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.code = code
        self.body = body
        self.headers = headers


class Session:
    """Requests to one API server. Make it with `Session.open`; `close` it at the end."""

    def __init__(self, configuration: Any, loader: Any) -> None:
        self._configuration = configuration
        self._loader = loader
        self._refreshed = time.monotonic()
        self.server: str = configuration.host.rstrip("/")
        self.observer: Observer | None = None
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEPALIVE, ssl=_ssl_context(configuration), ttl_dns_cache=60
            ),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, connect=CONNECT_TIMEOUT),
            headers={"User-Agent": f"driftwatch/{__version__}"},
            proxy=configuration.proxy,
            auto_decompress=True,
            read_bufsize=2**18,
        )

    @classmethod
    async def open(cls, kubeconfig: str | None = None, context: str | None = None) -> "Session":
        """Find the credentials: in-cluster when no kubeconfig is named and there are any, else a kubeconfig.

        Raises `CredentialsError` with what is missing and where it was looked for.
        """
        configuration = Configuration()
        if kubeconfig is None and context is None and os.environ.get(_SERVICE_HOST):
            try:
                kubernetes_config.load_incluster_config(client_configuration=configuration)
            except (kubernetes_config.ConfigException, OSError) as error:
                raise CredentialsError(f"in-cluster credentials cannot be used: {error}") from error
            return cls(configuration, None)
        files = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube/config")
        if not _any_is_a_file(files):
            raise CredentialsError(
                f"no kubeconfig at {files}; name one with cluster.kubeconfig or $KUBECONFIG, "
                "or run in a Pod with a service account"
            )
        try:
            loader = await kubernetes_config.load_kube_config(
                config_file=files, context=context, client_configuration=configuration, persist_config=False
            )
            return cls(configuration, loader)
        except Exception as error:  # the loader raises whatever a malformed file makes its code do
            raise CredentialsError(f"kubeconfig {files}: {error}") from error

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()
        # A TLS connection is closed a few turns of the loop later, and a loop that ends before complains.
        await asyncio.sleep(0.05)

    async def _authorization(self) -> dict[str, str]:
        configuration = self._configuration
        if configuration.refresh_api_key_hook is not None:
            await configuration.get_api_key_with_prefix("BearerToken")
        elif self._loader is not None and time.monotonic() - self._refreshed > CREDENTIALS_REFRESH:
            await self.refresh_credentials()
        token = configuration.api_key.get("BearerToken")
        return {"Authorization": token} if token else {}

    async def refresh_credentials(self) -> None:
        """Ask an exec plugin for a new token when the old one runs out; read rotated files again."""
        self._refreshed = time.monotonic()
        user = getattr(self._loader, "_user", None)
        if user is not None and "exec" in user:
            await self._loader.load_from_exec_plugin()
            if token := getattr(self._loader, "token", None):
                self._configuration.api_key["BearerToken"] = token

    def url(self, path: str, query: str = "") -> yarl.URL:
        """Absolute URL of an API path that is already percent-encoded."""
        return yarl.URL(f"{self.server}{path}{'?' + query if query else ''}", encoded=True)

    async def request(
        self,
        method: str,
        url: yarl.URL,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send a request and read the whole answer. Raises `ApiError` from 400 on, `Unreachable` without an answer."""
        began = time.monotonic()
        code: int | None = None
        try:
            async with self._http.request(
                method, url, data=body, headers={**(headers or {}), **await self._authorization()}
            ) as answer:
                content = await answer.read()
                code = answer.status
                if code >= 400:  # noqa: PLR2004
                    raise api_error(code, content, answer.headers)
                return Response(code, content, answer.headers)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            code = 0
            raise Unreachable(f"{self.server}: {_reason(error)}") from error
        finally:
            if self.observer is not None and code is not None:  # else it was given up from within
                self.observer(verb_of(method, url, headers or {}), code, time.monotonic() - began)

    @asynccontextmanager
    async def stream(self, url: yarl.URL, *, accept: str, silence: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch: chunks of bytes as they arrive; `Unreachable` when nothing came for `silence` seconds."""
        began, told = time.monotonic(), False
        try:
            async with self._http.get(
                url,
                headers={"Accept": accept, **await self._authorization()},
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT, sock_read=silence),
            ) as answer:
                told = True
                self._observe_watch(answer.status, began)
                if answer.status != 200:  # noqa: PLR2004
                    raise api_error(answer.status, await answer.read(), answer.headers)
                yield answer.content.iter_any()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if not told:
                self._observe_watch(0, began)
            raise Unreachable(f"{self.server}: {_reason(error)}", silent=isinstance(error, TimeoutError)) from error

    def _observe_watch(self, code: int, began: float) -> None:
        if self.observer is not None:
            self.observer(Verb.WATCH, code, time.monotonic() - began)

    async def keep_warm(self, period: float = 25.0, report: Callable[[Exception | None], None] | None = None) -> None:
        """Ask /livez now and then, so that the first heal after a quiet hour finds an open connection."""
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


def _any_is_a_file(paths: str) -> bool:
    return any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def _ssl_context(configuration: Any) -> ssl.SSLContext | bool:
    if not configuration.host.startswith("https"):
        return False
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    # Cluster CAs made by older installers lack the key identifiers that the strict mode of Python 3.13 asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
