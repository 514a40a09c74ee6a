"""Keeps up with one kind: all that there is, then every change from there, for ever, as client-go's reflector does.

It must survive everything that happens to a watch in production: a clean end (resumes), 410 as an answer or as an
ERROR event (lists again), a stream that is cut, stalls without a word or sends garbage, an API server that is away, and
one whose versions have gone back. A watch that missed something says so by listing again, and the listener takes what
the list does not show as deleted.
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
    """Whether this bookmark says that all that there is has been sent (KEP-3157)."""
    return _decode_bookmark(bookmark).object.metadata.annotations.end == "true"


async def lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Cut a stream into lines; what follows the last newline when it ends is dropped, the next watch sends it again."""
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
WATCH_SECONDS = (300, 600)  # the server ends a watch after a random time in between, so that watches spread
READ_TIMEOUT = 75.0  # seconds; bookmarks come about every minute, a stream silent for longer is dead
INITIAL_SILENCE = (
    10.0  # seconds; what sends nothing for longer while it sends what there is does not know how to end it
)
SHORT_WATCH = 1.0  # seconds; a watch that ends sooner, and brings nothing, counts as a failure as with client-go
YIELD_EVERY = 50  # objects of all that there are; after so many the loop goes on to whatever else is to be done: heals
STREAM_TRIES = 2  # failures in a row after which what there is is listed: a page that has come need not come again
BACKOFF = (0.8, 30.0)  # seconds, first and longest wait; client-go's
BACKOFF_RESET = 30.0  # seconds of a good watch after which the next failure starts over
LONGEST_RETRY_AFTER = 120.0  # seconds that the API server may have a watch wait: what drifts meanwhile stays

_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"

log = structlog.get_logger()


class Listener(Protocol):
    """Who is told what a reflector sees. Calls come on the event loop and must not block."""

    def on_page(self, resource: Resource, items: list[tuple[ObjectHead, Content]], *, first: bool) -> None:
        """Some of all the objects that there are; the `first` page begins anew, and may be empty."""

    def on_listed(self, resource: Resource, version: int) -> None:
        """The last page has come: there are no other objects at `version`, but for those that `on_event` told of."""

    def on_restored(self, resource: Resource) -> None:
        """The cluster's versions went back, as after a restore of etcd; a first page comes next."""

    def on_event(self, resource: Resource, change: str, head: ObjectHead, line: bytes) -> None:
        """An object was ADDED, MODIFIED or DELETED; `line` is the whole event."""

    def on_state(self, resource: Resource, *, up: bool, reason: str) -> None:
        """The watch came up, or went down and why."""

    def on_kind_gone(self, resource: Resource) -> None:
        """The API server does not serve this kind any more."""


class WatchEndReason(StrEnum):
    """Why a watch, or the LIST before it, ended."""

    ENDED = "ended"
    GONE = "gone"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    UNREADABLE = "unreadable"
    DEFECT = "defect"


class _Relist(ClusterError):
    """The watch cannot be resumed from where it was."""

    def __init__(self, ending: WatchEndReason, words: str) -> None:
        super().__init__(words)
        self.ending = ending


class _Endless(ClusterError):
    """What there is came as a watch, and nothing said that this was all."""


class Reflector:
    """Watches one kind. Run `run` as a task; `synced` is set once everything of the kind has been listed.

    `watching` is set while nothing speaks against the watch: it was open once, and has not been refused since.
    `refused` is what the API server said when it last forbade it, None once it allows it.

    `endings` counts the watches that have ended, `last_event` and `last_bookmark` are Unix seconds, 0 for never.
    """

    def __init__(
        self,
        session: Session,
        resource: Resource,
        listener: Listener,
        *,
        selector: str = "",
        metadata_only: bool = False,
        silence: float = READ_TIMEOUT,
    ) -> None:
        self._session = session
        self._resource = resource
        self._listener = listener
        self._selector = {"labelSelector": selector} if selector else {}
        self._metadata_only = metadata_only
        self._silence = silence
        self._version = 0
        self._resumes = False  # there is a version to go on from
        self._streams = True  # the API server can send what there is as a watch, as far as is known
        self._failures = 0
        self._hurry = asyncio.Event()
        self.synced = asyncio.Event()
        self.watching = asyncio.Event()
        self.refused: ApiError | None = None
        self.endings: Counter[WatchEndReason] = Counter()
        self.last_event = 0.0
        self.last_bookmark = 0.0

    def retry_now(self) -> None:
        """Do not sit out a backoff: the kind has just come (back).

        Called during a request, it is kept: the request may have been answered before the kind was served.
        """
        self._hurry.set()

    async def run(self) -> None:
        """List and watch until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began, wait = loop.time(), 0.0
            try:
                if self._resumes and await self._is_at_version():
                    await self._watch()
                else:
                    await self._begin()
                self.endings[WatchEndReason.ENDED] += 1
                if loop.time() - began > SHORT_WATCH:
                    self._failures = 0
                    continue  # a clean end: resume at once
            except ClusterError as error:
                wait = self._failed(error)
            except Exception as error:  # a mistake of ours in one event must not end the watch of the kind
                self._resumes = False
                self.endings[WatchEndReason.DEFECT] += 1
                log.exception("watch failed unexpectedly; it lists again", kind=str(self._resource.group_kind))
                self._listener.on_state(self._resource, up=False, reason=repr(error))
            if loop.time() - began > BACKOFF_RESET:
                self._failures = 0
            await self._pause(wait)

    def _failed(self, error: ClusterError) -> float:
        """Count and tell why the watch ended. Returns the seconds that the API server asks to be left alone for."""
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
                # It was away for a while. Had etcd been restored meanwhile, versions may have caught up by now, and
                # what was written on the way there would never be sent.
                self._resumes = False
        self.endings[ending] += 1
        self._listener.on_state(self._resource, up=False, reason=str(error))
        if isinstance(error, ApiError) and error.code == NOT_FOUND:
            self.synced.clear()
            self._listener.on_kind_gone(self._resource)
        return wait

    async def _pause(self, least: float) -> None:
        """Wait before the next try; the first try after a good while comes at once, since drift may be going on."""
        first, longest = BACKOFF
        self._failures += 1
        if self._failures == 1 and not least:
            return
        delay = backoff(self._failures - 1, first, longest)
        try:
            async with asyncio.timeout(max(delay, least)):
                await self._hurry.wait()
        except TimeoutError:
            return
        self._hurry.clear()
        self._failures = 0

    # --- What there is ---

    async def _begin(self) -> None:
        """See all that there is, and watch from there."""
        if self._streams and (self._failures < STREAM_TRIES or self.refused is not None):
            try:
                return await self._watch()
            except ApiError as error:
                if error.code not in (BAD_REQUEST, UNPROCESSABLE):
                    raise
                self._streams = False  # it has no such watches, or they are switched off
            except _Endless:
                self._streams = False  # what serves this kind takes no notice of what it does not know
        await self._list()
        return await self._watch()

    async def _list(self) -> None:
        query = {"limit": str(PAGE), **self._selector}
        first = True
        # Page by page: ten thousand objects at once would be the most that the process ever holds.
        while True:
            page = await self._page(query)
            version = int(page.metadata.resourceVersion)
            if first and version < self._version:
                self._restored()
            items: list[tuple[ObjectHead, Content]] = [
                (decode_head(raw), partial(bytes, raw)) for raw in page.items or ()
            ]
            self._listener.on_page(self._resource, items, first=first)
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
        self._listener.on_listed(self._resource, version)
        self.synced.set()

    async def _is_at_version(self) -> bool:
        """Whether the cluster still is where the watch is to go on from, or further.

        After a restore of etcd it may not be there again for hours, and a watch from a version to come is silent till
        then: the API server leaves out what is older, bookmarks as well.
        """
        try:
            page = await self._page({"limit": "1", **self._selector})
        except ApiError as error:
            if error.code != FORBIDDEN:
                raise
            self._resumes = False  # what may not be listed may be watched all the same, from its beginning
            return False
        if int(page.metadata.resourceVersion) >= self._version:
            return True
        self._restored()
        return False

    def _restored(self) -> None:
        self._version = 0
        self._resumes = False
        self._listener.on_restored(self._resource)

    # --- What happens then ---

    async def _watch(self) -> None:
        """Watch from the version that is known; without one, have what there is sent first."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),  # noqa: S311  no secret
            **self._selector,
        }
        if self._resumes:
            query["resourceVersion"] = str(self._version)
        else:
            # Without a version: as fresh as a LIST, also where the cluster's versions have gone back.
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        url = self._session.url(self._resource.collection, urlencode(query))
        accept = _METADATA if self._metadata_only else _JSON
        async with self._session.stream(url, accept=accept, silence=self._silence) as chunks:
            incoming = lines(chunks)
            if not self._resumes:
                await self._take_initial(incoming)
            self.refused = None
            self._hurry.clear()  # the watch is open: that was the wish
            self.watching.set()
            self._listener.on_state(self._resource, up=True, reason="")
            async for line in incoming:
                self._event(line)

    async def _take_initial(self, incoming: AsyncIterator[bytes]) -> None:
        """Take in what there is, until a bookmark says that this was all."""
        self._listener.on_page(self._resource, [], first=True)
        loop = asyncio.get_running_loop()
        silence = min(INITIAL_SILENCE, self._silence)
        taken = 0
        try:
            async with asyncio.timeout(silence) as patience:
                async for line in incoming:
                    if self._initial_event(line):
                        return
                    patience.reschedule(loop.time() + silence)
                    taken += 1
                    if taken % YIELD_EVERY == 0:
                        await asyncio.sleep(0)
        except TimeoutError as error:
            raise _Endless(f"nothing more came for {silence:.0f} s, nor that this was all") from error
        raise _Relist(WatchEndReason.ENDED, "the watch ended before all that there is had come")

    def _initial_event(self, line: bytes) -> bool:
        """Take in one of the objects that there are. Returns whether the line says that this was all."""
        event = self._read(line)
        match event.type:
            case "BOOKMARK":
                if not ends_initial_events(line):
                    return False
                version = event.object.version
                if version < self._version:  # what has just come was compared with versions that are no more
                    self._restored()
                    raise _Relist(WatchEndReason.GONE, "the cluster's versions went back")
                self.last_bookmark = time.time()
                self._listed(version)
                return True
            case "DELETED":  # meanwhile
                self._listener.on_event(self._resource, event.type, event.object, line)
            case _:
                item = event.object, partial(object_of, line)
                self._listener.on_page(self._resource, [item], first=False)
        self.last_event = time.time()
        return False

    def _event(self, line: bytes) -> None:
        event = self._read(line)
        if event.type == "BOOKMARK":
            self._version = event.object.version
            self.last_bookmark = time.time()
            return
        is_news = event.object.version > self._version
        self._version = max(self._version, event.object.version)
        self.last_event = time.time()
        self._listener.on_event(self._resource, event.type, event.object, line)
        if is_news:
            self._failures = 0  # whatever ends this watch, it has brought something

    def _read(self, line: bytes) -> WatchEvent:
        """An event, whose version is a number. Raises what an ERROR event says."""
        try:
            event = decode_event(line)
            if event.type != "ERROR":
                int(event.object.metadata.resourceVersion)
                return event
            status = msgspec.json.decode(object_of(line), type=Status)
        except (msgspec.MsgspecError, ValueError) as error:
            # Half a line of a cut stream, or garbage: nothing after it can be trusted either.
            raise _Relist(WatchEndReason.UNREADABLE, f"unreadable watch event: {error}") from error
        if status.code == GONE:
            raise _Relist(WatchEndReason.GONE, f"410: {status.message}")
        raise ApiError(status.code, status)
