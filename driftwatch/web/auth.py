"""Who may ask: requests carry a token, where the operator wants one.

The token is read for each request, so that one that was rotated counts at once. One that cannot be read opens nothing:
then nobody gets in, and the log says why.
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
"""What checks a secret of its own: the hosts of repositories sign, and have no token of ours."""

_SCHEME = "bearer"

log = structlog.get_logger("driftwatch.web")


class Access:
    """Asks for the token in `token`, where there is one; probes need none if they are `open_probes`."""

    def __init__(self, token: SecretRef, *, open_probes: bool) -> None:
        self._token = token
        self._free = PROBES if open_probes else frozenset()
        self._trouble = ""

    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request that may be answered; any other is refused and learns nothing."""
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
        """Log what is wrong with the token, once."""
        if trouble and trouble != self._trouble:
            log.error("token cannot be read", error=trouble, next="requests that need it are refused")
        self._trouble = trouble


def _carries(header: str, token: str) -> bool:
    """Whether the header carries the token, compared in a time that does not tell how much of it is right."""
    scheme, _, given = header.partition(" ")
    return scheme.lower() == _SCHEME and hmac.compare_digest(
        given.strip().encode("utf-8", "surrogateescape"), token.encode()
    )
