"""POST /hooks/SOURCE: a push that the repository's host tells of is looked at now, without waiting for the interval.

Anybody who reaches the port can call it. So nothing is done before the request has shown that it knows the source's
secret, a refusal says nothing about why, bodies are bounded one by one and together, and one that comes slowly is given
up and keeps nobody waiting. What a request says is used to pass over pushes to other branches and for nothing else: the
commit itself is asked of the remote, as always. A burst of pushes is one look at once and one after it.
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
"""Longest body: a push of thousands of commits has one of a few MB."""

MAX_BYTES_TOGETHER = 16 * 1024 * 1024
BODY_SECONDS = 10.0
"""How long a body may take to arrive."""

BURST_SECONDS = 0.5
"""Pushes that follow a look within this time are looked at together at its end."""

_PLAIN_TOKEN = "X-Gitlab-Token"  # noqa: S105  the name of a header
# Header and what stands before the hexadecimal HMAC-SHA256 of the body: GitHub; Forgejo; Gitea; Bitbucket.
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
    """A source as its webhook knows it; `revision` and `semver` as in the configuration."""

    name: str
    revision: str
    semver: str
    secret: SecretRef
    last_look: float = field(default=float("-inf"), compare=False)  # time of the event loop's clock
    timer: asyncio.TimerHandle | None = field(default=None, compare=False)


class Webhooks:
    """The webhooks of all sources."""

    def __init__(self, poll: Poll, requests: Counter) -> None:
        self._poll = poll
        self._requests = requests
        self._sources: dict[str, HookedSource] = {}
        self._arriving = 0
        self._looks: set[asyncio.Task[None]] = set()

    def follow(self, sources: Iterable[HookedSource]) -> None:
        """Serve these sources from now on."""
        before, self._sources = self._sources, {source.name: source for source in sources}
        for source in self._sources.values():
            if source.name in before:
                source.last_look = before[source.name].last_look
        for source in before.values():
            if source.timer is not None:
                source.timer.cancel()
                if source.name in self._sources:
                    self._look_soon(self._sources[source.name])

    def close(self) -> None:
        """Forget what is due."""
        self.follow(())
        for look in self._looks:
            look.cancel()

    async def serve(self, request: web.Request) -> web.Response:
        """Answer one request."""
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
        except _NotTaken as error:
            return self._answer(source.name, "invalid", error.status, str(error))
        if not _is_signed(request.headers, secret, body):
            return self._answer(source.name, "refused", HTTPStatus.UNAUTHORIZED, "refused")
        return self._obey(source, request, body)

    def _obey(self, source: HookedSource, request: web.Request, body: bytes) -> web.Response:
        """Do what a request that knows the secret asks for."""
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
        self._look_soon(source)
        return self._answer(source.name, "polled", HTTPStatus.ACCEPTED, "the repository is looked at")

    def _look_soon(self, source: HookedSource) -> None:
        if source.timer is not None and not source.timer.cancelled():
            return
        loop = asyncio.get_running_loop()
        source.timer = loop.call_at(max(loop.time(), source.last_look + BURST_SECONDS), self._look, source)

    def _look(self, source: HookedSource) -> None:
        source.timer = None
        source.last_look = asyncio.get_running_loop().time()
        look = asyncio.ensure_future(self._poll(source.name))
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)

    async def _body(self, request: web.Request) -> bytes:
        """Read the body, within its bounds. Raises `_NotTaken`."""
        too_large = _NotTaken(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {MAX_BODY_BYTES} bytes")
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
                        raise _NotTaken(HTTPStatus.SERVICE_UNAVAILABLE, "too much at once; send it again")
        except TimeoutError:
            raise _NotTaken(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time") from None
        except ConnectionError:  # the client has left, or has made room for others: no fault of ours
            raise _NotTaken(HTTPStatus.BAD_REQUEST, "the body ended too soon") from None
        finally:
            self._arriving -= len(body)
        return bytes(body)

    def _answer(self, source: str, result: str, status: HTTPStatus, text: str) -> web.Response:
        self._requests.labels(source, result).inc()
        _log.debug("webhook", source=source, result=result, status=status.value, reason=text)
        response = web.Response(status=status, text=f"{text}\n")
        if status >= HTTPStatus.BAD_REQUEST:
            response.force_close()  # what is left of the body is not waited for
        return response


class _NotTaken(Exception):
    """A body is not taken; the message is for whoever sent it."""

    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status = status


def _may_be_signed(headers: Mapping[str, str], secret: str) -> bool:
    """Whether it is worth to read the body: the token is right, or there is a signature to compare with it."""
    if _PLAIN_TOKEN in headers:
        return _same(headers[_PLAIN_TOKEN], secret)
    return any(name in headers for name, _ in _SIGNATURES)


def _is_signed(headers: Mapping[str, str], secret: str, body: bytes) -> bool:
    """Whether the request knows the secret. The first header that a host may have signed with counts."""
    if _PLAIN_TOKEN in headers:
        return _same(headers[_PLAIN_TOKEN], secret)
    digest = hmac.new(secret.encode(), body, "sha256").hexdigest()
    for name, prefix in _SIGNATURES:
        if name in headers:
            return _same(headers[name], prefix + digest)
    return False


def _same(given: str, expected: str) -> bool:
    """Whether two texts are the same, in a time that does not tell how much of them is."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())
