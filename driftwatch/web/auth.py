"""Bearer-token authentication of HTTP requests, if the operator configures a token.

The token file is read for each request, so a rotated token is effective immediately. If the file cannot be read,
requests are rejected and the log says why.
"""

import asyncio
import hmac
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from driftwatch.secret import SecretRef, SecretUnavailable

PROBES = frozenset({"/healthz", "/readyz"})
OWN_SECRETS = ("/hooks/",)
"""Paths that check a secret of their own: webhooks are signed by the Git host, which has no bearer token."""

_SCHEME = "bearer"

log = structlog.get_logger("driftwatch.web")


class BearerAuth:
    """Requires the bearer token in `token`, if there is one. With `open_probes`, probes need no token."""

    def __init__(self, token: SecretRef, *, open_probes: bool) -> None:
        self._token = token
        self._free = PROBES if open_probes else frozenset()
        self._trouble = ""

    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Run `handler` if the request is authorized. Else answer 401, or 503 if the token cannot be read."""
        if not self._token or request.path in self._free or request.path.startswith(OWN_SECRETS):
            return await handler(request)
        try:
            token = await asyncio.to_thread(self._token.read, "server.tokenFile")
        except SecretUnavailable as error:
            self._say(str(error))
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="the token cannot be checked\n")
        self._say("")
        if not _carries(request.headers.get("Authorization", ""), token):
            return web.Response(
                status=HTTPStatus.UNAUTHORIZED,
                text="a bearer token is needed\n",
                headers={"WWW-Authenticate": 'Bearer realm="driftwatch"'},
            )
        return await handler(request)

    def _say(self, trouble: str) -> None:
        """Log an error with the token once."""
        if trouble and trouble != self._trouble:
            log.error("token cannot be read", error=trouble, next="requests that need it are refused")
        self._trouble = trouble


def _carries(header: str, token: str) -> bool:
    """Whether the `Authorization` header carries the token. The comparison takes constant time."""
    scheme, _, given = header.partition(" ")
    return scheme.lower() == _SCHEME and hmac.compare_digest(
        given.strip().encode("utf-8", "surrogateescape"), token.encode()
    )
