"""Finds the kinds and namespaces of which nothing is left, so that they need not be watched for ever.

A kind that Git no longer declares is dropped from the inventory when its watch is complete and has shown no object of
the source for a while: an apply in flight when Git dropped the last object may still create it. A kind that is not
served is not watched, but stays in the inventory: a CRD that stops serving it keeps its objects.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ClusterError
from driftwatch.cluster.watch_manager import Watches
from driftwatch.drift.desired_state import Declared
from driftwatch.model import GroupKind
from driftwatch.state.inventory import Inventory
from driftwatch.state.orphan_index import OrphanIndex

QUIET = 5.0  # seconds without an object until a kind or namespace is dropped
GONE_STEP = 1.0  # seconds between looks at a kind whose watch got 404 and that discovery still shows
UNSERVED_STEP = 10.0  # seconds between looks at kinds that are not served; an unchanged answer is a 304 of no body


class ServedKinds(Protocol):
    """The part of `RestMapper` that is needed here."""

    def preferred(self, kind: GroupKind) -> Resource | None:
        """How the kind is served, None where it is not."""

    async def serves(self, kind: GroupKind, version: str) -> bool:
        """Ask the API server whether it serves the kind at this version. Raises `ClusterError`."""


class UnusedKinds:
    """Drops unused kinds from the inventory. `on_change` is called when other kinds are to be watched afterwards."""

    def __init__(
        self,
        declared: Declared,
        orphans: OrphanIndex,
        inventory: Inventory,
        watches: Watches,
        kinds: ServedKinds,
        clock: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        self._declared = declared
        self._orphans = orphans
        self._inventory = inventory
        self._watches = watches
        self._kinds = kinds
        self._clock = clock
        self._on_change = on_change
        self._quiet: dict[tuple[str, GroupKind], float] = {}
        self._empty: dict[tuple[GroupKind, str], float] = {}  # since when nothing of the kind is in the namespace
        self._unserved: set[GroupKind] = set()
        self._next_look = 0.0

    async def drop(self, sources: Iterable[str]) -> float | None:
        """Drop the unused kinds of these sources. Returns the seconds until the next look, None for no need."""
        changed = await self._settle_gone()
        await self._look_at_unserved()
        now = self._clock()
        over: dict[tuple[str, GroupKind], float] = {}
        unserved: set[GroupKind] = set()
        complete = self._complete
        for source in sources:
            for kind in self._inventory.kinds(source).keys() - self._declared.kinds_of(source):
                if self._kinds.preferred(kind) is None:
                    unserved.add(kind)
                elif kind in complete and not self._orphans.has(source, kind):
                    over[source, kind] = self._quiet.get((source, kind), now)
        for (source, kind), since in list(over.items()):
            if now - since >= QUIET:
                self._inventory.drop(source, kind)
                del over[source, kind]
                changed = True
        changed = changed or bool(self._unserved - unserved)
        self._quiet, self._unserved = over, unserved
        self._leave_namespaces(now)
        if changed:
            self._on_change()
        waits = [QUIET - (now - since) for since in (*over.values(), *self._empty.values())]
        waits += [GONE_STEP] * bool(self._orphans.kinds_gone)
        waits += [self._next_look - now] * bool(unserved)
        return min(waits, default=None)

    @property
    def _complete(self) -> set[GroupKind]:
        return self._watches.kinds - set(self._watches.unsynced())

    async def _settle_gone(self) -> bool:
        """Ask whether kinds whose watch got 404 are served. Returns whether any of them is not.

        A 404 alone says nothing: it may come from a proxy, and discovery may lag behind it.
        """
        found = False
        for kind, resource in list(self._orphans.kinds_gone.items()):
            if self._declared.namespaces(kind) or kind in self._complete:
                del self._orphans.kinds_gone[kind]
                continue
            try:
                served = await self._kinds.serves(kind, resource.version)
            except ClusterError:
                continue  # asked again in a moment
            if not served:
                self._orphans.kinds_gone.pop(kind, None)
                found = True
        return found

    async def _look_at_unserved(self) -> None:
        """Have discovery look for the kinds that are not served: the first of them stands for all."""
        if self._unserved and self._clock() >= self._next_look:
            self._next_look = self._clock() + UNSERVED_STEP
            try:
                await self._kinds.serves(min(self._unserved), "")
            except ClusterError:
                return

    def _leave_namespaces(self, now: float) -> None:
        """Close the watches of namespaces in which nothing of the kind is declared or left.

        Only a kind that is watched namespace by namespace has any. One that left Git is still watched for orphans.
        """
        empty: dict[tuple[GroupKind, str], float] = {}
        for kind, watch in self._watches.of_kinds.items():
            if (watched := watch.namespaces) and (declared := self._declared.namespaces(kind)):
                for namespace in watched - declared - self._orphans.namespaces(kind):
                    empty[kind, namespace] = self._empty.get((kind, namespace), now)
        for kind, namespace in [place for place, since in empty.items() if now - since >= QUIET]:
            self._watches.leave(kind, [namespace])
            self._orphans.on_unwatched(kind, namespace)
            del empty[kind, namespace]
        self._empty = empty
