"""Lists and watches one kind, like client-go's Reflector.

It must survive every failure of a watch in production: a clean end (it resumes), 410 as an answer or as an ERROR event
(it lists again), a stream that is cut, stalls silently or sends garbage, an API server that is unavailable, and one
whose resourceVersions went back. If events may have been missed, it lists again. The handler treats objects that the
list does not contain as deleted.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from enum import StrEnum
from functools import partial
from typing import Protocol
from urllib.parse import urlencode

import msgspec
import structlog

from driftwatch.backoff import backoff
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import (
    BAD_REQUEST,
    FORBIDDEN,
    GONE,
    NOT_FOUND,
    UNPROCESSABLE,
    ApiError,
    ClusterError,
    Status,
    Unreachable,
)
from driftwatch.cluster.session import Session
from driftwatch.drift.metadata import (
    Content,
    ObjectHead,
    ObjectList,
    WatchEvent,
    decode_event,
    decode_head,
    decode_list,
    object_of,
)


class _Annotations(msgspec.Struct, frozen=True, gc=False):
    end: str = msgspec.field(name="k8s.io/initial-events-end", default="")


class _Metadata(msgspec.Struct, frozen=True, gc=False):
    annotations: _Annotations = _Annotations()


class _Object(msgspec.Struct, frozen=True, gc=False):
    metadata: _Metadata = _Metadata()


class _Bookmark(msgspec.Struct, frozen=True, gc=False):
    object: _Object = _Object()


_decode_bookmark = msgspec.json.Decoder(_Bookmark).decode


def ends_initial_events(bookmark: bytes) -> bool:
    """Whether the bookmark carries `k8s.io/initial-events-end` (KEP-3157): all initial objects have been sent."""
    return _decode_bookmark(bookmark).object.metadata.annotations.end == "true"


async def lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Split a stream into lines. An incomplete last line is dropped: the next watch sends that event again."""
    rest: list[bytes] = []
    async for chunk in chunks:
        if b"\n" not in chunk:
            rest.append(chunk)
            continue
        first, *middle, last = chunk.split(b"\n")
        yield b"".join((*rest, first)) if rest else first
        for line in middle:
            yield line
        rest = [last] if last else []


PAGE = 500  # objects a LIST page, client-go's default
WATCH_SECONDS = (300, 600)  # range of the random `timeoutSeconds` of a watch; random, so that watches spread
READ_TIMEOUT = 75.0  # seconds; bookmarks arrive about every minute, so a stream silent for longer is dead
INITIAL_EVENTS_TIMEOUT = (
    10.0  # seconds; a server silent for longer during the initial objects does not send initial-events-end
)
SHORT_WATCH = 1.0  # seconds; a watch that ends sooner and brings no event counts as a failure, as in client-go
YIELD_EVERY = 50  # initial objects handled before yielding to the event loop, so that heals are not delayed
STREAM_TRIES = 2  # failures in a row before falling back to a LIST: a received page need not be sent again
BACKOFF = (0.8, 30.0)  # seconds, first and longest wait; as in client-go
BACKOFF_RESET = 30.0  # seconds of a good watch after which the backoff starts at the beginning
LONGEST_RETRY_AFTER = 120.0  # seconds; upper limit for Retry-After, because drift goes unnoticed meanwhile

_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"

log = structlog.get_logger()


class ResourceEventHandler(Protocol):
    """Handler for the objects and events of a reflector. Its methods run on the event loop and must not block."""

    def on_page(self, resource: Resource, items: list[tuple[ObjectHead, Content]], *, first: bool) -> None:
        """Handle one page of a list. The `first` page starts a new list and may be empty."""

    def on_listed(self, resource: Resource, version: int) -> None:
        """Handle the end of a list: at resourceVersion `version` no other objects exist, except those of `on_event`."""

    def on_restored(self, resource: Resource) -> None:
        """Handle resourceVersions that went back, as after a restore of etcd. A first page follows."""

    def on_event(self, resource: Resource, change: str, head: ObjectHead, line: bytes) -> None:
        """Handle one watch event: `change` is ADDED, MODIFIED or DELETED, `line` the whole event as JSON."""

    def on_state(self, resource: Resource, *, up: bool, reason: str) -> None:
        """Handle a watch that came up, or went down for `reason`."""

    def on_kind_gone(self, resource: Resource) -> None:
        """Handle a 404 for the kind's collection: the API server no longer serves the kind."""


class WatchEndReason(StrEnum):
    """Reason why a watch, or the LIST before it, ended."""

    ENDED = "ended"
    GONE = "gone"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    UNREADABLE = "unreadable"
    DEFECT = "defect"


class _Relist(ClusterError):
    """The watch cannot be resumed from its resourceVersion."""

    def __init__(self, ending: WatchEndReason, words: str) -> None:
        super().__init__(words)
        self.ending = ending


class _NoInitialEventsEnd(ClusterError):
    """The server sent no initial-events-end bookmark."""


class Reflector:
    """Lists and watches one kind. Run `run` as a task.

    `synced` is set once every object of the kind has been listed.
    `watching` is set once the watch was open. It is cleared when the API server forbids the watch.
    `refused` is the last 403, None once the watch is allowed.

    `endings` counts the watches that have ended. `last_event` and `last_bookmark` are Unix seconds, 0 for never.
    """

    def __init__(
        self,
        session: Session,
        resource: Resource,
        handler: ResourceEventHandler,
        *,
        selector: str = "",
        metadata_only: bool = False,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        self._session = session
        self._resource = resource
        self._handler = handler
        self._selector = {"labelSelector": selector} if selector else {}
        self._metadata_only = metadata_only
        self._read_timeout = read_timeout
        self._version = 0
        self._resumes = False  # whether `_version` can be resumed from
        self._streams = True  # the API server supports sendInitialEvents (KEP-3157), as far as known
        self._failures = 0
        self._skip_backoff = asyncio.Event()
        self.synced = asyncio.Event()
        self.watching = asyncio.Event()
        self.refused: ApiError | None = None
        self.endings: Counter[WatchEndReason] = Counter()
        self.last_event = 0.0
        self.last_bookmark = 0.0

    def retry_now(self) -> None:
        """Skip the backoff: the kind has just become available.

        A call during a request skips the next backoff: the request may have been answered before the kind was served.
        """
        self._skip_backoff.set()

    async def run(self) -> None:
        """List and watch until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began, wait = loop.time(), 0.0
            try:
                if self._resumes and await self._is_at_version():
                    await self._watch()
                else:
                    await self._list_and_watch()
                self.endings[WatchEndReason.ENDED] += 1
                if loop.time() - began > SHORT_WATCH:
                    self._failures = 0
                    continue  # a clean end: resume immediately
            except ClusterError as error:
                wait = self._record_failure(error)
            except Exception as error:  # a bug in handling one event must not end the watch of the kind
                self._resumes = False
                self.endings[WatchEndReason.DEFECT] += 1
                log.exception("watch failed unexpectedly; it lists again", kind=str(self._resource.group_kind))
                self._handler.on_state(self._resource, up=False, reason=repr(error))
            if loop.time() - began > BACKOFF_RESET:
                self._failures = 0
            await self._back_off(wait)

    def _record_failure(self, error: ClusterError) -> float:
        """Count and report why the watch ended. Returns the API server's Retry-After, in seconds, 0.0 without one."""
        ending, wait = WatchEndReason.UNREACHABLE, 0.0
        match error:
            case _Relist():
                ending = error.ending
                self._resumes = False
            case ApiError():
                ending = WatchEndReason.GONE if error.code == GONE else WatchEndReason.REFUSED
                self._resumes = self._resumes and error.code != GONE
                wait = min(error.retry_after, LONGEST_RETRY_AFTER)
                if error.code == FORBIDDEN:
                    self.refused = error
                    self.watching.clear()
            case Unreachable() if error.silent:
                ending = WatchEndReason.SILENT
            case Unreachable() if self._failures:
                # The API server was unavailable for a while. If etcd was restored meanwhile, resourceVersions may have
                # caught up already. A resumed watch would then never receive the writes in between.
                self._resumes = False
        self.endings[ending] += 1
        self._handler.on_state(self._resource, up=False, reason=str(error))
        if isinstance(error, ApiError) and error.code == NOT_FOUND:
            self.synced.clear()
            self._handler.on_kind_gone(self._resource)
        return wait

    async def _back_off(self, least: float) -> None:
        """Wait before the next attempt, at least `least` seconds. After a good watch, the first retry is immediate."""
        first, longest = BACKOFF
        self._failures += 1
        if self._failures == 1 and not least:
            return
        delay = backoff(self._failures - 1, first, longest)
        try:
            async with asyncio.timeout(max(delay, least)):
                await self._skip_backoff.wait()
        except TimeoutError:
            return
        self._skip_backoff.clear()
        self._failures = 0

    # --- Initial objects ---

    async def _list_and_watch(self) -> None:
        """Read every object of the kind, then watch from there."""
        if self._streams and (self._failures < STREAM_TRIES or self.refused is not None):
            try:
                return await self._watch()
            except ApiError as error:
                if error.code not in (BAD_REQUEST, UNPROCESSABLE):
                    raise
                self._streams = False  # sendInitialEvents is not supported, or switched off
            except _NoInitialEventsEnd:
                self._streams = False  # an aggregated API server may ignore unknown query parameters
        await self._list()
        return await self._watch()

    async def _list(self) -> None:
        query = {"limit": str(PAGE), **self._selector}
        first = True
        # In pages: ten thousand objects at once would be the peak of the process's memory.
        while True:
            page = await self._page(query)
            version = int(page.metadata.resourceVersion)
            if first and version < self._version:
                self._restored()
            items: list[tuple[ObjectHead, Content]] = [
                (decode_head(raw), partial(bytes, raw)) for raw in page.items or ()
            ]
            self._handler.on_page(self._resource, items, first=first)
            if not page.metadata.continue_:
                break
            query["continue"] = page.metadata.continue_
            first = False
        self._listed(version)

    async def _page(self, query: dict[str, str]) -> ObjectList:
        url = self._session.url(self._resource.collection, urlencode(query))
        accept = {"Accept": _METADATA_LIST if self._metadata_only else _JSON}
        answer = await self._session.request("GET", url, headers=accept)
        try:
            return decode_list(answer.body)
        except msgspec.MsgspecError as error:
            raise _Relist(WatchEndReason.UNREADABLE, f"unreadable list: {error}") from error

    def _listed(self, version: int) -> None:
        self._version = version
        self._resumes = True
        self._handler.on_listed(self._resource, version)
        self.synced.set()

    async def _is_at_version(self) -> bool:
        """Whether the cluster's resourceVersion is at least the one to resume from.

        After a restore of etcd it may take hours to reach that version again. A watch from a future version is silent
        until then: the API server omits older events, including bookmarks.
        """
        try:
            page = await self._page({"limit": "1", **self._selector})
        except ApiError as error:
            if error.code != FORBIDDEN:
                raise
            self._resumes = False  # `list` is forbidden; a watch with initial objects may still be allowed
            return False
        if int(page.metadata.resourceVersion) >= self._version:
            return True
        self._restored()
        return False

    def _restored(self) -> None:
        self._version = 0
        self._resumes = False
        self._handler.on_restored(self._resource)

    # --- Watch events ---

    async def _watch(self) -> None:
        """Watch from the known resourceVersion. Without one, the server sends the initial objects first."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),  # noqa: S311  no secret
            **self._selector,
        }
        if self._resumes:
            query["resourceVersion"] = str(self._version)
        else:
            # Without a resourceVersion: as fresh as a LIST, also if the cluster's versions went back.
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        url = self._session.url(self._resource.collection, urlencode(query))
        accept = _METADATA if self._metadata_only else _JSON
        async with self._session.stream(url, accept=accept, read_timeout=self._read_timeout) as chunks:
            incoming = lines(chunks)
            if not self._resumes:
                await self._read_initial_events(incoming)
            self.refused = None
            self._skip_backoff.clear()  # the watch is open, so `retry_now` is done
            self.watching.set()
            self._handler.on_state(self._resource, up=True, reason="")
            async for line in incoming:
                self._event(line)

    async def _read_initial_events(self, incoming: AsyncIterator[bytes]) -> None:
        """Handle the initial objects, up to the initial-events-end bookmark."""
        self._handler.on_page(self._resource, [], first=True)
        loop = asyncio.get_running_loop()
        read_timeout = min(INITIAL_EVENTS_TIMEOUT, self._read_timeout)
        taken = 0
        try:
            async with asyncio.timeout(read_timeout) as deadline:
                async for line in incoming:
                    if self._initial_event(line):
                        return
                    deadline.reschedule(loop.time() + read_timeout)
                    taken += 1
                    if taken % YIELD_EVERY == 0:
                        await asyncio.sleep(0)
        except TimeoutError as error:
            raise _NoInitialEventsEnd(f"nothing more came for {read_timeout:.0f} s, nor that this was all") from error
        raise _Relist(WatchEndReason.ENDED, "the watch ended before all that there is had come")

    def _initial_event(self, line: bytes) -> bool:
        """Handle one initial event. Returns whether it was the initial-events-end bookmark."""
        event = self._read(line)
        match event.type:
            case "BOOKMARK":
                if not ends_initial_events(line):
                    return False
                version = event.object.version
                if version < self._version:  # the initial objects were compared with versions from before a restore
                    self._restored()
                    raise _Relist(WatchEndReason.GONE, "the cluster's versions went back")
                self.last_bookmark = time.time()
                self._listed(version)
                return True
            case "DELETED":  # deleted while the initial objects were sent
                self._handler.on_event(self._resource, event.type, event.object, line)
            case _:
                item = event.object, partial(object_of, line)
                self._handler.on_page(self._resource, [item], first=False)
        self.last_event = time.time()
        return False

    def _event(self, line: bytes) -> None:
        event = self._read(line)
        if event.type == "BOOKMARK":
            self._version = event.object.version
            self.last_bookmark = time.time()
            return
        is_new = event.object.version > self._version
        self._version = max(self._version, event.object.version)
        self.last_event = time.time()
        self._handler.on_event(self._resource, event.type, event.object, line)
        if is_new:
            self._failures = 0  # a watch that brought an event is not a failure, however it ends

    def _read(self, line: bytes) -> WatchEvent:
        """Decode an event and check its resourceVersion. Raises `_Relist`, and `ApiError` for an ERROR event."""
        try:
            event = decode_event(line)
            if event.type != "ERROR":
                int(event.object.metadata.resourceVersion)
                return event
            status = msgspec.json.decode(object_of(line), type=Status)
        except (msgspec.MsgspecError, ValueError) as error:
            # A partial line of a cut stream, or garbage. The rest of the stream cannot be trusted either.
            raise _Relist(WatchEndReason.UNREADABLE, f"unreadable watch event: {error}") from error
        if status.code == GONE:
            raise _Relist(WatchEndReason.GONE, f"410: {status.message}")
        raise ApiError(status.code, status)
