"""Sends drift events to one receiver by HTTP: filtered, in batches, with retries. No reconcile waits for it.

The queue is bounded. When a receiver is away for long, the oldest events are dropped and counted. Address and token are
secrets. They are read for each request, and removed from logged errors.
"""

import asyncio
import contextlib
import itertools
import ssl
import time
from collections import deque
from fnmatch import fnmatchcase
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import structlog

from driftwatch import __version__
from driftwatch.backoff import backoff
from driftwatch.config.observe import Notification
from driftwatch.metrics.registry import Metrics
from driftwatch.notify import messages
from driftwatch.notify.alertmanager import Alerts, IsOpen
from driftwatch.notify.messages import Message
from driftwatch.report.drift_event import UNKNOWN, DriftEvent, Severity
from driftwatch.secret import SecretRef, SecretUnavailable

QUEUE = 1000  # most events that wait for one receiver
BACKOFF = (1.0, 60.0)  # seconds, first and longest
WORDS = 200  # bytes of a response body that are logged
RESULTS = ("sent", "dropped", "refused")
SEVERITIES = list(Severity)
ALERTS_PATH = "/api/v2/alerts"

_FORMS = {"webhook": messages.webhook, "slack": messages.slack, "teams": messages.teams}

log = structlog.get_logger()


class Waiting(Protocol):
    """Events that wait to be sent."""

    def __len__(self) -> int: ...

    def put(self, seen: DriftEvent) -> int:
        """Add an event. Returns the number of dropped events."""

    def take(self, most: int) -> list[Any]:
        """The next batch."""

    def message(self, batch: list[Any]) -> Message:
        """The request body for a batch."""

    def due(self) -> float | None:
        """Seconds until the next repetition, None for never."""

    def repeat(self) -> None:
        """Queue again what has to be repeated."""


class Line:
    """A queue of events in order. When it is full, the oldest event is dropped."""

    def __init__(self, config: Notification) -> None:
        self._form = _FORMS[config.type]
        self._template = config.template
        self._waiting: deque[DriftEvent] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, seen: DriftEvent) -> int:
        """Add an event."""
        self._waiting.append(seen)
        if len(self._waiting) <= QUEUE:
            return 0
        self._waiting.popleft()
        return 1

    def take(self, most: int) -> list[DriftEvent]:
        """The next batch."""
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def message(self, batch: list[DriftEvent]) -> Message:
        """The request body for a batch."""
        return self._form(batch, self._template)

    def due(self) -> float | None:
        """Nothing is repeated."""
        return None

    def repeat(self) -> None:
        """Nothing is repeated."""


class _Failed(Exception):
    """A request failed. `again`: a retry may help. `after`: the least seconds before it."""

    def __init__(self, words: str, *, again: bool = True, after: float = 0.0) -> None:
        super().__init__(words)
        self.again = again
        self.after = after


class Notifier:
    """One receiver. Run `run` as a task. `is_open` says whether the reported state of an object still holds."""

    def __init__(self, config: Notification, metrics: Metrics, is_open: IsOpen) -> None:
        self.config = config
        self._metrics = metrics
        self._waiting: Waiting = (
            Alerts(config.template, is_open, time.time) if config.type == "alertmanager" else Line(config)
        )
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._full = asyncio.Event()
        self._closing = False
        self._failing = ""
        for result in RESULTS:
            self._count(result, 0)

    def note(self, seen: DriftEvent) -> None:
        """Queue the event if it passes the filters."""
        if wants(self.config, seen):
            if dropped := self._waiting.put(seen):
                self._count("dropped", dropped)
            self._idle.clear()
            self._news.set()
            if len(self._waiting) >= self.config.batch:
                self._full.set()

    async def run(self) -> None:
        """Send the queued events, until cancelled."""
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self.config.timeout),
            headers={"User-Agent": f"driftwatch/{__version__}"},
        ) as http:
            while True:
                await self._await_news()
                batch = self._waiting.take(self.config.batch)
                if batch:
                    await self._deliver(http, batch)
                if not len(self._waiting):
                    self._news.clear()
                    self._idle.set()
                elif len(self._waiting) >= self.config.batch:
                    self._full.set()

    async def drained(self) -> None:
        """Wait until the queue is empty. From now on batches are sent at once, without `batchWindow`."""
        self._closing = True
        self._full.set()
        await self._idle.wait()

    def forget(self) -> None:
        """Remove the receiver's metric series."""
        for result in RESULTS:
            self._metrics.notifications.remove(self.config.name, result)

    async def _await_news(self) -> None:
        """Wait for the first event, then for the rest of its batch."""
        while not self._news.is_set():
            try:
                async with asyncio.timeout(self._waiting.due()):
                    await self._news.wait()
            except TimeoutError:
                self._waiting.repeat()
                if len(self._waiting):
                    return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.batchWindow):
                await self._full.wait()
        if not self._closing:
            self._full.clear()

    async def _deliver(self, http: aiohttp.ClientSession, batch: list[Any]) -> None:
        """Send a batch. After an unexpected exception it is dropped and counted."""
        try:
            await self._try(http, batch)
        except Exception:
            self._count("dropped", len(batch))
            log.exception("notification failed unexpectedly", receiver=self.config.name, next="it is dropped")

    async def _try(self, http: aiohttp.ClientSession, batch: list[Any]) -> None:
        """Send a batch, with retries for `retryFor` seconds."""
        message = self._waiting.message(batch)
        deadline = time.monotonic() + self.config.retryFor
        for failures in itertools.count(1):
            secrets: list[str] = []
            try:
                await self._send(http, message, secrets)
            except (_Failed, SecretUnavailable, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                wait = max(backoff(failures, *BACKOFF), getattr(error, "after", 0.0))
                words = scrubbed(_reason(error), secrets)
                again = getattr(error, "again", True) and time.monotonic() + wait < deadline
                self._say(words, again=again)
                if not again:
                    self._count("refused" if not getattr(error, "again", True) else "dropped", len(batch))
                    return
                await asyncio.sleep(wait)
            else:
                if self._failing:
                    self._failing = ""
                    log.info("receiver takes notifications again", receiver=self.config.name)
                self._count("sent", len(batch))
                return

    async def _send(self, http: aiohttp.ClientSession, message: Message, secrets: list[str]) -> None:
        """Send one request. Adds to `secrets` the texts that must not be logged."""
        # Files may be on a network file system, so they are not read on the event loop.
        url, token, context = await asyncio.to_thread(self._place)
        secrets += [url, token] if self.config.url is None else [token]
        headers = {"Content-Type": message.media_type}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # A redirect would send the message and the token to another server.
        async with http.post(
            url, data=message.body, headers=headers, ssl=context, proxy=_proxy(url), allow_redirects=False
        ) as answer:
            if answer.status < 300:  # noqa: PLR2004
                return
            words = (await answer.content.read(WORDS)).decode("utf-8", "replace").strip()
            again = answer.status >= 500 or answer.status in (408, 425, 429)  # noqa: PLR2004
            after = answer.headers.get("Retry-After", "")
            raise _Failed(
                f"HTTP {answer.status} {answer.reason or ''}: {words}".rstrip(": "),
                again=again,
                after=float(after) if after.isdigit() else 0.0,
            )

    def _place(self) -> tuple[str, str, ssl.SSLContext | bool]:
        """Read address, token and CA file. Raises `SecretUnavailable` or `OSError`."""
        name = self.config.name
        url = self.config.url or self.config.address.read(f"address of receiver {name}")
        if urlsplit(url).scheme not in ("http", "https"):
            raise SecretUnavailable(f"address of receiver {name}: what is there is no http or https address")
        if self.config.type == "alertmanager" and not url.rstrip("/").endswith(ALERTS_PATH):
            url = url.rstrip("/") + ALERTS_PATH
        token = _read(self.config.token, f"token of receiver {name}")
        context = ssl.create_default_context(cafile=self.config.caFile) if self.config.caFile else True
        return url, token, context

    def _say(self, words: str, *, again: bool) -> None:
        """Log a failure. Each error is logged once, and every drop."""
        if again and words == self._failing:
            return
        self._failing = words
        log.log(
            30 if again else 40,
            "notification failed",
            receiver=self.config.name,
            type=self.config.type,
            error=words,
            next=f"tried again for {self.config.retryFor:.0f} s" if again else "it is dropped",
        )

    def _count(self, result: str, by: int) -> None:
        self._metrics.notifications.labels(self.config.name, result).inc(by)


def wants(config: Notification, seen: DriftEvent) -> bool:
    """Whether the event passes the receiver's filters."""
    return (
        seen.what.value in config.events
        and SEVERITIES.index(seen.severity) >= SEVERITIES.index(Severity(config.severity))
        and _any(config.sources, seen.source)
        and _any(config.kinds, str(seen.key.group_kind))
        and _any(config.namespaces, seen.key.namespace)
        and _any(config.driftTypes, seen.type)
        and _any(config.managers, seen.manager or UNKNOWN)
    )


def _any(globs: list[str], value: str) -> bool:
    return not globs or any(fnmatchcase(value, glob) for glob in globs)


def _read(secret: SecretRef, what: str) -> str:
    return secret.read(what) if secret else ""


def _proxy(url: str) -> str | None:
    """The proxy from https_proxy, http_proxy and no_proxy. aiohttp would also read ~/.netrc, on the event loop."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def scrubbed(words: str, secrets: list[str]) -> str:
    """The text without the secrets. Of an address, path and query are hidden on their own, too."""
    for secret in filter(None, secrets):
        parts = urlsplit(secret)
        pieces = [secret, *([f"{parts.path}?{parts.query}", parts.path, parts.query] if parts.scheme else [])]
        for piece in pieces:
            if len(piece) > 1:
                words = words.replace(piece, "<hidden>")
    return words
