"""Handler of POST /hooks/SOURCE: polls the repository after a push, without waiting for the interval.

Every client that reaches the port can send a request. The handler acts only after the request is authenticated with
the source's secret. A rejection does not say why. Bodies are limited in size, individually and together, and in time.
The payload is used only to ignore pushes to other branches. The commit always comes from the remote. A burst of pushes
causes one poll immediately and one afterwards.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import structlog
from aiohttp import web
from prometheus_client import Counter

from driftwatch.secret import SecretRef, SecretUnavailable
from driftwatch.web.push_events import concerns, refs_of

MAX_BODY_BYTES = 4 * 1024 * 1024
"""Largest body. A push of thousands of commits has a few MB."""

MAX_BYTES_TOGETHER = 16 * 1024 * 1024
BODY_SECONDS = 10.0
"""Time limit for receiving a body."""

BURST_SECONDS = 0.5
"""Minimum seconds between two polls of a source. Pushes in between share the second poll."""

_PLAIN_TOKEN = "X-Gitlab-Token"  # noqa: S105  the name of a header
# Header, and prefix of the hexadecimal HMAC-SHA256 of the body: GitHub, Forgejo, Gitea, Bitbucket.
_SIGNATURES = (
    ("X-Hub-Signature-256", "sha256="),
    ("X-Forgejo-Signature", ""),
    ("X-Gitea-Signature", ""),
    ("X-Hub-Signature", "sha256="),
)

_log = structlog.get_logger("driftwatch.web")
Poll = Callable[[str], Awaitable[None]]


@dataclass
class HookedSource:
    """Webhook settings of a source. `revision` and `semver` are as in the configuration."""

    name: str
    revision: str
    semver: str
    secret: SecretRef
    last_poll: float = field(default=float("-inf"), compare=False)  # event loop time, in seconds
    timer: asyncio.TimerHandle | None = field(default=None, compare=False)


class Webhooks:
    """The webhooks of all sources."""

    def __init__(self, poll: Poll, requests: Counter) -> None:
        self._poll = poll
        self._requests = requests
        self._sources: dict[str, HookedSource] = {}
        self._arriving = 0
        self._polls: set[asyncio.Task[None]] = set()

    def follow(self, sources: Iterable[HookedSource]) -> None:
        """Replace the served sources. Pending polls of sources that remain are kept."""
        before, self._sources = self._sources, {source.name: source for source in sources}
        for source in self._sources.values():
            if source.name in before:
                source.last_poll = before[source.name].last_poll
        for source in before.values():
            if source.timer is not None:
                source.timer.cancel()
                if source.name in self._sources:
                    self._schedule_poll(self._sources[source.name])

    def close(self) -> None:
        """Cancel pending and running polls."""
        self.follow(())
        for poll in self._polls:
            poll.cancel()

    async def serve(self, request: web.Request) -> web.Response:
        """Handle one request."""
        source = self._sources.get(request.match_info["source"])
        if source is None or not source.secret:
            name = source.name if source is not None else ""
            return self._answer(name, "refused", HTTPStatus.NOT_FOUND, "there is no such webhook")
        try:
            secret = await asyncio.to_thread(source.secret.read, "webhook.secret")
        except SecretUnavailable as error:
            _log.error("webhook cannot be checked", source=source.name, error=str(error), next="the push is refused")
            return self._answer(source.name, "unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "not available")
        if not _may_be_signed(request.headers, secret):
            return self._answer(source.name, "refused", HTTPStatus.UNAUTHORIZED, "refused")
        try:
            body = await self._body(request)
        except _BodyRejected as error:
            return self._answer(source.name, "invalid", error.status, str(error))
        if not _is_signed(request.headers, secret, body):
            return self._answer(source.name, "refused", HTTPStatus.UNAUTHORIZED, "refused")
        return self._handle_push(source, request, body)

    def _handle_push(self, source: HookedSource, request: web.Request, body: bytes) -> web.Response:
        """Handle an authenticated request: schedule a poll if the push concerns the source."""
        try:
            pushed = refs_of(request.headers, request.content_type, body)
        except ValueError as error:
            return self._answer(source.name, "invalid", HTTPStatus.BAD_REQUEST, f"not a push: {error}")
        if pushed is None:
            return self._answer(source.name, "ignored", HTTPStatus.ACCEPTED, "ignored: this is no push")
        if not concerns(pushed, source.revision, source.semver):
            wanted = f"semver {source.semver}" if source.semver else source.revision
            reason = f"ignored: {', '.join(pushed.refs[:3])} is not {wanted}"
            return self._answer(source.name, "ignored", HTTPStatus.ACCEPTED, reason)
        self._schedule_poll(source)
        return self._answer(source.name, "polled", HTTPStatus.ACCEPTED, "the repository is looked at")

    def _schedule_poll(self, source: HookedSource) -> None:
        if source.timer is not None and not source.timer.cancelled():
            return
        loop = asyncio.get_running_loop()
        source.timer = loop.call_at(max(loop.time(), source.last_poll + BURST_SECONDS), self._start_poll, source)

    def _start_poll(self, source: HookedSource) -> None:
        source.timer = None
        source.last_poll = asyncio.get_running_loop().time()
        poll = asyncio.ensure_future(self._poll(source.name))
        self._polls.add(poll)
        poll.add_done_callback(self._polls.discard)

    async def _body(self, request: web.Request) -> bytes:
        """Read the body within its limits of size and time. Raises `_BodyRejected`."""
        too_large = _BodyRejected(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {MAX_BODY_BYTES} bytes")
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.content.iter_any():
                    body += chunk
                    self._arriving += len(chunk)
                    if len(body) > MAX_BODY_BYTES:
                        raise too_large
                    if self._arriving > MAX_BYTES_TOGETHER:
                        raise _BodyRejected(HTTPStatus.SERVICE_UNAVAILABLE, "too much at once; send it again")
        except TimeoutError:
            raise _BodyRejected(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time") from None
        except ConnectionError:  # the client has disconnected, or the connection limit closed the connection
            raise _BodyRejected(HTTPStatus.BAD_REQUEST, "the body ended too soon") from None
        finally:
            self._arriving -= len(body)
        return bytes(body)

    def _answer(self, source: str, result: str, status: HTTPStatus, text: str) -> web.Response:
        self._requests.labels(source, result).inc()
        _log.debug("webhook", source=source, result=result, status=status.value, reason=text)
        response = web.Response(status=status, text=f"{text}\n")
        if status >= HTTPStatus.BAD_REQUEST:
            response.force_close()  # do not read the rest of the body
        return response


class _BodyRejected(Exception):
    """The body is rejected. The message is sent to the client."""

    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status = status


def _may_be_signed(headers: Mapping[str, str], secret: str) -> bool:
    """Whether the body should be read: the token is correct, or there is a signature to verify."""
    if _PLAIN_TOKEN in headers:
        return _same(headers[_PLAIN_TOKEN], secret)
    return any(name in headers for name, _ in _SIGNATURES)


def _is_signed(headers: Mapping[str, str], secret: str, body: bytes) -> bool:
    """Whether the request is authenticated. Of several signature headers, the first in `_SIGNATURES` decides."""
    if _PLAIN_TOKEN in headers:
        return _same(headers[_PLAIN_TOKEN], secret)
    digest = hmac.new(secret.encode(), body, "sha256").hexdigest()
    for name, prefix in _SIGNATURES:
        if name in headers:
            return _same(headers[name], prefix + digest)
    return False


def _same(given: str, expected: str) -> bool:
    """Compare two strings in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())
