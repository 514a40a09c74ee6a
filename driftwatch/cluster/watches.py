"""The reflectors of a daemon: one a kind, started and stopped as Git declares kinds and stops declaring them."""

import asyncio

from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.reflector import Listener, Reflector
from driftwatch.cluster.session import Session
from driftwatch.model import SECRET, GroupKind


class Watches:
    """Starts and stops reflectors that tell `listener`."""

    def __init__(self, session: Session, listener: Listener) -> None:
        self._session = session
        self._listener = listener
        self._running: dict[GroupKind, tuple[tuple[Resource, str], Reflector, asyncio.Task[None]]] = {}

    @property
    def kinds(self) -> set[GroupKind]:
        """Kinds that are watched."""
        return set(self._running)

    @property
    def reflectors(self) -> dict[GroupKind, Reflector]:
        """The reflector of each kind that is watched."""
        return {kind: reflector for kind, (_, reflector, _) in self._running.items()}

    def start(self, resource: Resource, selector: str) -> None:
        """Watch the kind with this label selector, from a LIST on.

        A watch with another selector is replaced, and one of another version, which may be served no more.
        """
        kind, what = resource.group_kind, (resource, selector)
        running = self._running.get(kind)
        if running is not None and running[0] == what:
            return
        if running is not None:
            running[2].cancel()
        # Who owns the fields of a Secret says enough; its values never enter the process through a watch.
        reflector = Reflector(self._session, resource, self._listener, selector=selector, metadata_only=kind == SECRET)
        task = asyncio.get_running_loop().create_task(reflector.run(), name=f"watch {kind}")
        self._running[kind] = (what, reflector, task)

    def stop(self, kind: GroupKind) -> None:
        """Watch the kind no more."""
        running = self._running.pop(kind, None)
        if running is not None:
            running[2].cancel()

    def hurry(self, kind: GroupKind) -> None:
        """The kind is served again: do not sit out a backoff."""
        if kind in self._running:
            self._running[kind][1].hurry()

    def unsynced(self) -> list[GroupKind]:
        """Kinds of which not everything has been listed, or whose watch was never open or is refused."""
        return [
            kind
            for kind, (_, reflector, _) in self._running.items()
            if not (reflector.synced.is_set() and reflector.watching.is_set())
        ]

    async def wait_synced(self, kinds: set[GroupKind], timeout: float) -> None:  # noqa: ASYNC109  seconds, and no error
        """Wait until everything of these kinds is listed, but no longer than `timeout` seconds."""
        waits = [asyncio.ensure_future(self._running[kind][1].synced.wait()) for kind in kinds if kind in self._running]
        if waits:
            _, pending = await asyncio.wait(waits, timeout=timeout)
            for wait in pending:
                wait.cancel()

    async def close(self) -> None:
        """End every watch."""
        tasks = [task for _, _, task in self._running.values()]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
