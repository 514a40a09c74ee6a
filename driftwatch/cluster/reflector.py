"""Keeps up with one kind: LIST, then WATCH from there, for ever, as client-go's reflector does.

It must survive everything that happens to a watch in production: a clean end (resumes), 410 as an answer or as an
ERROR event (lists again), a stream that is cut, stalls without a word or sends garbage, and an API server that is
away. A watch that missed something says so by listing again, and the listener takes what the list does not show as
deleted.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Protocol
from urllib.parse import urlencode

import msgspec
import structlog

from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import FORBIDDEN, GONE, NOT_FOUND, ApiError, ClusterError, Status, Unreachable
from driftwatch.cluster.session import Session
from driftwatch.drift.metadata import ObjectHead, decode_event, decode_head, decode_list, object_of

PAGE = 500  # objects a LIST page, client-go's default
WATCH_SECONDS = (300, 600)  # the server ends a watch after a random time in between, so that watches spread
SILENCE = 75.0  # seconds; bookmarks come about every minute, a stream silent for longer is dead
BACKOFF = (0.8, 30.0)  # seconds, first and longest wait; client-go's
BACKOFF_RESET = 30.0  # seconds of a good watch after which the next failure starts over

_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"

log = structlog.get_logger()


class Listener(Protocol):
    """Who is told what a reflector sees. Calls come on the event loop and must not block."""

    def on_page(self, resource: Resource, items: list[tuple[ObjectHead, msgspec.Raw]], *, first: bool) -> None:
        """A page of all objects that there are; the `first` one begins anew.

        An item's bytes are a slice of its page: who keeps one copies it.
        """

    def on_listed(self, resource: Resource, version: int) -> None:
        """The last page has come: there are no other objects at `version`."""

    def on_restored(self, resource: Resource) -> None:
        """The cluster's versions went back, as after a restore of etcd; a first page comes next."""

    def on_event(self, resource: Resource, change: str, head: ObjectHead, line: bytes) -> None:
        """An object was ADDED, MODIFIED or DELETED; `line` is the whole event."""

    def on_state(self, resource: Resource, *, up: bool, reason: str) -> None:
        """The watch came up, or went down and why."""

    def on_kind_gone(self, resource: Resource) -> None:
        """The API server does not serve this kind any more."""


class Ending(StrEnum):
    """Why a watch, or the LIST before it, ended."""

    ENDED = "ended"
    GONE = "gone"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    UNREADABLE = "unreadable"
    DEFECT = "defect"


class _Relist(Exception):
    """The watch cannot be resumed from where it was."""

    def __init__(self, ending: Ending, words: str) -> None:
        super().__init__(words)
        self.ending = ending


class Reflector:
    """Watches one kind. Run `run` as a task; `synced` is set once everything of the kind has been listed.

    `watching` is set while nothing speaks against the watch: it was open once, and has not been refused since.

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
    ) -> None:
        self._session = session
        self._resource = resource
        self._listener = listener
        self._selector = selector
        self._metadata_only = metadata_only
        self._version = 0
        self._failures = 0
        self._hurry = asyncio.Event()
        self.synced = asyncio.Event()
        self.watching = asyncio.Event()
        self.endings: Counter[Ending] = Counter()
        self.last_event = 0.0
        self.last_bookmark = 0.0

    def hurry(self) -> None:
        """Do not sit out a backoff: the kind has just come (back)."""
        self._hurry.set()

    async def run(self) -> None:
        """List and watch until cancelled."""
        loop = asyncio.get_running_loop()
        resume = False
        while True:
            began = loop.time()
            try:
                if not resume:
                    await self._list()
                resume = True
                await self._watch()
                self._failures = 0
                self.endings[Ending.ENDED] += 1
                continue  # a clean end: resume at once
            except _Relist as reason:
                resume = False
                self.endings[reason.ending] += 1
                self._listener.on_state(self._resource, up=False, reason=str(reason))
            except ApiError as error:
                resume = resume and error.code != GONE
                if error.code == FORBIDDEN:
                    self.watching.clear()
                self.endings[Ending.GONE if error.code == GONE else Ending.REFUSED] += 1
                self._listener.on_state(self._resource, up=False, reason=str(error))
                if error.code == NOT_FOUND:
                    self.synced.clear()
                    self._listener.on_kind_gone(self._resource)
            except ClusterError as error:
                silent = isinstance(error, Unreachable) and error.silent
                self.endings[Ending.SILENT if silent else Ending.UNREACHABLE] += 1
                self._listener.on_state(self._resource, up=False, reason=str(error))
            except Exception as error:  # a mistake of ours in one event must not end the watch of the kind
                resume = False
                self.endings[Ending.DEFECT] += 1
                log.exception("watch failed unexpectedly; it lists again", kind=str(self._resource.group_kind))
                self._listener.on_state(self._resource, up=False, reason=repr(error))
            if loop.time() - began > BACKOFF_RESET:
                self._failures = 0
            await self._pause()

    async def _pause(self) -> None:
        """Wait before the next try; the first try after a good while comes at once, since drift may be going on."""
        first, longest = BACKOFF
        self._failures += 1
        if self._failures == 1:
            return
        delay = min(first * 2.0 ** (self._failures - 2), longest) * random.uniform(0.5, 1.0)  # noqa: S311  no secret
        self._hurry.clear()
        try:
            await asyncio.wait_for(self._hurry.wait(), delay)
        except TimeoutError:
            return
        self._failures = 0

    async def _list(self) -> None:
        query = {"limit": str(PAGE)}
        if self._selector:
            query["labelSelector"] = self._selector
        accept = {"Accept": _METADATA_LIST if self._metadata_only else _JSON}
        first = True
        # Page by page: ten thousand objects at once would be the most that the process ever holds.
        while True:
            url = self._session.url(self._resource.collection, urlencode(query))
            answer = await self._session.request("GET", url, headers=accept)
            page = decode_list(answer.body)
            version = int(page.metadata.resourceVersion)
            if first and version < self._version:
                self._listener.on_restored(self._resource)
            self._listener.on_page(self._resource, [(decode_head(raw), raw) for raw in page.items or ()], first=first)
            if not page.metadata.continue_:
                break
            query["continue"] = page.metadata.continue_
            first = False
        self._version = version
        self._listener.on_listed(self._resource, version)
        self.synced.set()

    async def _watch(self) -> None:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": str(self._version),
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),  # noqa: S311  no secret
        }
        if self._selector:
            query["labelSelector"] = self._selector
        url = self._session.url(self._resource.collection, urlencode(query))
        accept = _METADATA if self._metadata_only else _JSON
        async with self._session.stream(url, accept=accept, silence=SILENCE) as chunks:
            self.watching.set()
            self._listener.on_state(self._resource, up=True, reason="")
            async for line in _lines(chunks):
                self._event(line)

    def _event(self, line: bytes) -> None:
        try:
            event = decode_event(line)
            if event.type == "BOOKMARK":
                self._version = event.object.version
                self.last_bookmark = time.time()
                return
            if event.type == "ERROR":
                status = msgspec.json.decode(object_of(line), type=Status)
                if status.code == GONE:
                    raise _Relist(Ending.GONE, f"410: {status.message}")
                raise ApiError(status.code, status)
            self._version = max(self._version, event.object.version)
        except (msgspec.MsgspecError, ValueError) as error:
            # Half a line of a cut stream, or garbage: nothing after it can be trusted either.
            raise _Relist(Ending.UNREADABLE, f"unreadable watch event: {error}") from error
        self.last_event = time.time()
        self._listener.on_event(self._resource, event.type, event.object, line)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
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
