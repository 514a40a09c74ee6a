"""The watches of a daemon: one a kind, started and stopped as Git declares kinds and stops declaring them."""

import asyncio
from collections.abc import Iterable

from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.kind_watch import KindWatch, WatchListener
from driftwatch.cluster.session import Session
from driftwatch.model import GroupKind


class Watches:
    """Starts and stops watches that tell `listener`."""

    def __init__(self, session: Session, listener: WatchListener) -> None:
        self._session = session
        self._listener = listener
        self._running: dict[GroupKind, KindWatch] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def kinds(self) -> set[GroupKind]:
        """Kinds that are watched."""
        return set(self._running)

    @property
    def of_kinds(self) -> dict[GroupKind, KindWatch]:
        """The watch of each kind that is watched."""
        return self._running

    def start(self, resource: Resource, selector: str, namespaces: Iterable[str] = ()) -> None:
        """Watch the kind with this label selector, from a LIST on.

        A watch with another selector is replaced, and one of another version, which may be served no more. `namespaces`
        are those that it takes, should the API server not allow to watch all of them. After `close` nothing is started.
        """
        if self._closed:
            return
        kind = resource.group_kind
        running = self._running.get(kind)
        if running is not None and running.is_of(resource, selector):
            running.want(namespaces)
            return
        self.stop(kind)
        self._running[kind] = KindWatch(self._session, resource, self._listener, selector, namespaces)

    def stop(self, kind: GroupKind) -> None:
        """Watch the kind no more."""
        running = self._running.pop(kind, None)
        self._await_end(running.stop() if running is not None else ())

    def leave(self, kind: GroupKind, namespaces: Iterable[str]) -> None:
        """Close the watches of single namespaces of the kind in which nothing is declared or left."""
        if kind in self._running:
            self._await_end(self._running[kind].leave(namespaces))

    def _await_end(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        for task in tasks:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def retry_now(self, kind: GroupKind) -> None:
        """The kind is served again: do not sit out a backoff."""
        if kind in self._running:
            self._running[kind].retry_now()

    def unsynced(self) -> list[GroupKind]:
        """Kinds of which not everything has been listed, or whose watch was never open or is refused."""
        return [kind for kind, watch in self._running.items() if not watch.is_synced]

    async def wait_settled(self, kinds: set[GroupKind], timeout: float) -> None:  # noqa: ASYNC109  seconds, no error
        """Wait until everything of these kinds is listed that may be, but no longer than `timeout` seconds."""
        waits = [asyncio.ensure_future(self._running[kind].settled.wait()) for kind in kinds if kind in self._running]
        if waits:
            _, pending = await asyncio.wait(waits, timeout=timeout)
            for wait in pending:
                wait.cancel()

    async def close(self) -> None:
        """End every watch, for good."""
        self._closed = True
        for kind in list(self._running):
            self.stop(kind)
        await asyncio.gather(*self._ending, return_exceptions=True)
