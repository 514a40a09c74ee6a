"""The daemon's watches: one per kind, started when Git first declares the kind and stopped when it no longer does."""

import asyncio
from collections.abc import Iterable

from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.kind_watch import KindWatch, WatchHandler
from driftwatch.cluster.session import Session
from driftwatch.model import GroupKind


class Watches:
    """Starts and stops watches, whose events go to the handler."""

    def __init__(self, session: Session, handler: WatchHandler) -> None:
        self._session = session
        self._handler = handler
        self._running: dict[GroupKind, KindWatch] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def kinds(self) -> set[GroupKind]:
        """The watched kinds."""
        return set(self._running)

    @property
    def of_kinds(self) -> dict[GroupKind, KindWatch]:
        """The watch of each watched kind."""
        return self._running

    def start(self, resource: Resource, selector: str, namespaces: Iterable[str] = ()) -> None:
        """List and watch the kind with this label selector.

        Replaces a watch with another selector or version, since that version may no longer be served. `namespaces` are
        the namespaces to watch if the API server forbids a cluster-wide watch. Does nothing after `close`.
        """
        if self._closed:
            return
        kind = resource.group_kind
        running = self._running.get(kind)
        if running is not None and running.is_of(resource, selector):
            running.want(namespaces)
            return
        self.stop(kind)
        self._running[kind] = KindWatch(self._session, resource, self._handler, selector, namespaces)

    def stop(self, kind: GroupKind) -> None:
        """Stop watching the kind."""
        running = self._running.pop(kind, None)
        self._await_end(running.stop() if running is not None else ())

    def leave(self, kind: GroupKind, namespaces: Iterable[str]) -> None:
        """Close the kind's per-namespace watches in which nothing is declared or left over."""
        if kind in self._running:
            self._await_end(self._running[kind].leave(namespaces))

    def _await_end(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        for task in tasks:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def retry_now(self, kind: GroupKind) -> None:
        """Skip the kind's backoff: it is served again."""
        if kind in self._running:
            self._running[kind].retry_now()

    def unsynced(self) -> list[GroupKind]:
        """Return the kinds that are not fully listed, or whose watch was never open or is refused."""
        return [kind for kind, watch in self._running.items() if not watch.is_synced]

    async def wait_settled(self, kinds: set[GroupKind], timeout: float) -> None:  # noqa: ASYNC109  seconds, no error
        """Wait until every allowed object of these kinds is listed, for at most `timeout` seconds. Never raises."""
        waits = [asyncio.ensure_future(self._running[kind].settled.wait()) for kind in kinds if kind in self._running]
        if waits:
            _, pending = await asyncio.wait(waits, timeout=timeout)
            for wait in pending:
                wait.cancel()

    async def close(self) -> None:
        """End every watch. None can be started afterwards."""
        self._closed = True
        for kind in list(self._running):
            self.stop(kind)
        await asyncio.gather(*self._ending, return_exceptions=True)
