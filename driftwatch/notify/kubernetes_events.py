"""Writes Kubernetes Events (events.k8s.io/v1) about drifting objects. `kubectl describe` shows them.

An Event must never delay a reconcile or load the API server. Events are written one after another at a bounded rate,
and they wait for a time while drift is being healed. Repeated Events become a series, as in client-go's recorder. A
token bucket bounds the Events of each object. When the API server refuses Events, that is logged once, and there is no
retry loop.
"""

import asyncio
import contextlib
import heapq
import itertools
import re
import socket
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import msgspec
import structlog

from driftwatch.cluster.errors import (
    FORBIDDEN,
    NOT_FOUND,
    SERVER_ERROR,
    TOO_MANY_REQUESTS,
    ApiError,
    ClusterError,
)
from driftwatch.cluster.session import Session
from driftwatch.escape import printable
from driftwatch.metrics.registry import Metrics
from driftwatch.model import ObjectKey
from driftwatch.report.drift_event import DriftEvent, EventType, story, timestamp
from driftwatch.report.object_lookup import ObjectLookup, Reference

CONTROLLER = "driftwatch.io/driftwatch"
CLUSTER_SCOPED = "default"  # namespace of Events about cluster-scoped objects
QUEUE = 2000  # most series that wait to be written
PACE = 0.02  # seconds between two writes: kubelet's default, 50 a second
PACE_BESIDE_DRIFT = 0.05  # the same while drift is healed; also the seconds between two checks whether it still is
REFRESH = 10.0  # seconds between two writes of one series
GIVES_WAY = 10.0  # most seconds that an Event waits while drift is healed; endless drift must not stop all Events
SERIES_ENDS = 360.0  # seconds without a repetition after which a new series begins, as in client-go
BURST, REFILL = (
    25,
    300.0,
)  # size of an object's token bucket, and seconds until it gets one more token, as in client-go
TRIES = 5  # tries of a write when the API server does not answer
TERMINATING_FOR = 10.0  # seconds without writes in a namespace that is being deleted
# Seconds without writes after a 403, doubling: an API server that has just started denies even allowed requests.
FORBIDDEN_FIRST, FORBIDDEN_LONGEST = 10.0, 600.0
MAX_NOTE = 1000  # bytes; the API takes 1024
MAX_KNOWN = 4096  # most series kept, and most buckets

_KINDS = {
    EventType.DRIFTED: ("Warning", "Detect", "Drifted"),
    EventType.HEALED: ("Normal", "Heal", "DriftHealed"),
    EventType.MENDED: ("Normal", "Observe", "InSync"),
    EventType.FAILED: ("Warning", "Heal", "HealFailed"),
    EventType.SNOOZED: ("Normal", "Snooze", "Snoozed"),
    EventType.UNREADABLE: ("Warning", "Snooze", "SnoozeUnreadable"),
    EventType.CONTESTED: ("Warning", "Heal", "Contested"),
    EventType.CALM: ("Normal", "Observe", "CalmAgain"),
}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_JSON = {"Content-Type": "application/json"}
_MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}

K = TypeVar("K")
V = TypeVar("V")

log = structlog.get_logger()


class SeriesId(NamedTuple):
    """Identity of a series: Events with equal ids are repetitions."""

    regarding: Reference
    what: EventType
    note: str


class Series(msgspec.Struct):
    """An Event and its repetitions. `name` is "" until the Event is written. Times are Unix seconds."""

    first: float
    last: float
    count: int = 1
    name: str = ""
    written: float = 0.0
    queued: bool = False
    tries: int = 0


class Bucket(msgspec.Struct):
    """Token bucket: how many Events an object may still cause."""

    level: float
    filled: float

    def take(self, now: float) -> bool:
        """Take a token. Returns False when there is none."""
        self.level = min(self.level + (now - self.filled) / REFILL, BURST)
        self.filled = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


class Events:
    """Writes Events. Call `note` with each drift event, and run `run` as a task.

    `busy` returns whether drift is being healed. `now` is the wall clock.
    """

    def __init__(
        self,
        session: Session,
        subjects: ObjectLookup,
        metrics: Metrics,
        busy: Callable[[], bool],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._subjects = subjects
        self._metrics = metrics
        self._busy = busy
        self._now = now
        self._instance = f"driftwatch-{socket.gethostname()}"[:128]
        self._series: OrderedDict[SeriesId, Series] = OrderedDict()
        self._buckets: OrderedDict[ObjectKey, Bucket] = OrderedDict()
        self._queue: list[tuple[float, int, SeriesId]] = []
        self._order = itertools.count()
        self._news = asyncio.Event()
        self._muted: dict[str, float] = {}
        self._forbidden: dict[str, float] = {}
        self._told = False
        self._enabled = True

    def configure(self, *, enabled: bool) -> None:
        """Switch writing on or off."""
        self._enabled = enabled

    def note(self, seen: DriftEvent) -> None:
        """Queue an Event about the object, or a repetition of its series."""
        regarding = self._subjects.reference(seen.key) if self._enabled else None
        if regarding is None:
            return
        now = self._now()
        if self._is_muted(_namespace(regarding), now):
            self._count("refused")
            return
        ident = SeriesId(regarding, seen.what, _cut(story(seen, timed=False)))
        series = self._series.get(ident)
        if series is not None and now - series.last < SERIES_ENDS:
            series.count += 1
            series.last = now
            self._count("aggregated")
        elif len(self._queue) >= QUEUE or not self._may_cause(seen.key, now):
            self._count("dropped")
            return
        else:
            series = Series(now, now)
        _remember(self._series, ident, series)
        self._push(ident, series, max(now, series.written + REFRESH) if series.name else now)

    async def run(self) -> None:
        """Write the queued Events, until cancelled."""
        while True:
            if not self._queue:
                self._news.clear()
                await self._news.wait()
            due, _, ident = self._queue[0]
            wait = min(due - self._now(), REFRESH)
            if wait > 0:
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._news.wait()
                continue
            if self._now() < due + GIVES_WAY and self._busy():
                await asyncio.sleep(PACE_BESIDE_DRIFT)
                continue
            heapq.heappop(self._queue)
            series = self._series.get(ident)
            if series is None:
                continue
            series.queued = False
            await self._write(ident, series)
            await asyncio.sleep(PACE_BESIDE_DRIFT if self._busy() else PACE)

    def _push(self, ident: SeriesId, series: Series, due: float) -> None:
        if not series.queued:
            series.queued = True
            heapq.heappush(self._queue, (due, next(self._order), ident))
            self._news.set()

    async def _write(self, ident: SeriesId, series: Series) -> None:
        namespace = _namespace(ident.regarding)
        if self._is_muted(namespace, self._now()):
            self._count("refused")
            return
        try:
            if series.name:
                await self._go_on(namespace, series)
            else:
                await self._create(namespace, ident, series)
                self._count("written")
            series.tries = 0
            series.written = self._now()
            self._muted.pop(namespace, None)
            self._forbidden.pop(namespace, None)
        except ClusterError as error:
            await self._on_refusal(namespace, ident, series, error)

    async def _create(self, namespace: str, ident: SeriesId, series: Series) -> None:
        kind, action, reason = _KINDS[ident.what]
        regarding = ident.regarding
        name = _event_name(regarding.name, series.first)
        event: dict[str, Any] = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": timestamp(series.first),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "type": kind,
            "action": action,
            "reason": reason,
            "note": ident.note,
            "regarding": {
                "apiVersion": regarding.api_version,
                "kind": regarding.kind,
                "name": regarding.name,
                **({"namespace": regarding.namespace} if regarding.namespace else {}),
                **({"uid": regarding.uid} if regarding.uid else {}),
            },
            **_repetitions(series),
        }
        await self._session.request("POST", self._url(namespace), body=msgspec.json.encode(event), headers=_JSON)
        series.name = name

    async def _go_on(self, namespace: str, series: Series) -> None:
        url = self._url(namespace, series.name)
        body = msgspec.json.encode(_repetitions(series))
        await self._session.request("PATCH", url, body=body, headers=_MERGE_PATCH)

    async def _on_refusal(self, namespace: str, ident: SeriesId, series: Series, error: ClusterError) -> None:
        code = error.code if isinstance(error, ApiError) else 0
        if code == NOT_FOUND and series.name:  # the API server forgets Events after an hour
            series.name = ""
            self._push(ident, series, self._now())
        elif code in (0, TOO_MANY_REQUESTS) or code >= SERVER_ERROR:
            series.tries += 1
            if series.tries >= TRIES:
                self._series.pop(ident, None)
                self._count("dropped")
                return
            self._push(ident, series, self._now())
            await asyncio.sleep(2.0 ** (series.tries - 1))  # blocks all series: the API server is away
        else:
            self._series.pop(ident, None)
            self._count("refused")
            gone = code == NOT_FOUND or (isinstance(error, ApiError) and error.has_cause("NamespaceTerminating"))
            if gone:
                self._muted[namespace] = self._now() + TERMINATING_FOR
            elif code == FORBIDDEN:
                wait = self._forbidden.get(namespace, FORBIDDEN_FIRST)
                self._forbidden[namespace] = min(2.0 * wait, FORBIDDEN_LONGEST)
                self._muted[namespace] = self._now() + wait
            self._say(namespace, error, gone=gone)

    def _say(self, namespace: str, error: ClusterError, *, gone: bool) -> None:
        """Log a refused Event, only once: it is no reason to fill the log."""
        if gone:
            log.debug("event not written", namespace=namespace, error=str(error))
        elif not self._told:
            self._told = True
            log.warning(
                "event not written",
                namespace=namespace,
                error=str(error),
                next="tried there ever more rarely, and this is not said again; allow create and patch of events in "
                "events.k8s.io, or set events.enabled to false",
            )

    def _is_muted(self, namespace: str, now: float) -> bool:
        return self._muted.get(namespace, 0.0) > now

    def _may_cause(self, key: ObjectKey, now: float) -> bool:
        bucket = self._buckets.get(key) or Bucket(BURST, now)
        _remember(self._buckets, key, bucket)
        return bucket.take(now)

    def _url(self, namespace: str, name: str = "") -> Any:
        return self._session.url(
            f"/apis/events.k8s.io/v1/namespaces/{quote(namespace, '')}/events{'/' + name if name else ''}"
        )

    def _count(self, result: str) -> None:
        self._metrics.events.labels(result).inc()


def _namespace(regarding: Reference) -> str:
    return regarding.namespace or CLUSTER_SCOPED


def _repetitions(series: Series) -> dict[str, Any]:
    """The `series` of an Event. A single Event has none."""
    if series.count == 1:
        return {}
    return {"series": {"count": series.count, "lastObservedTime": timestamp(series.last)}}


def _event_name(name: str, first: float) -> str:
    """The name of an Event, as in client-go. A UUID when the object's name is not valid in an Event's name."""
    made = f"{name}.{int(first * 1e9):x}"
    return made if len(made) <= 253 and _NAME.fullmatch(made) else str(uuid.uuid4())  # noqa: PLR2004


def _cut(note: str) -> str:
    note = printable(note)
    encoded = note.encode()
    return note if len(encoded) <= MAX_NOTE else encoded[: MAX_NOTE - 3].decode("utf-8", "ignore") + "…"


def _remember(known: OrderedDict[K, V], key: K, value: V) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > MAX_KNOWN:
        known.popitem(last=False)
