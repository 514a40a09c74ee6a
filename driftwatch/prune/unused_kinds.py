"""Finds kinds and namespaces without objects, so that driftwatch can stop watching them.

A kind that Git no longer declares is dropped from the inventory when its watch is complete and has shown no object of
the source for `QUIET` seconds. The delay covers an apply that was in flight when Git dropped the last object. A kind
that is not served is not watched. It stays in the inventory until its CRD is deleted, because a CRD that stops serving
a version keeps its objects.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol

from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import NOT_FOUND, ApiError, ClusterError
from driftwatch.cluster.watch_manager import Watches
from driftwatch.drift.desired_state import Declared
from driftwatch.model import CRD, GroupKind
from driftwatch.state.inventory import Inventory
from driftwatch.state.orphan_index import OrphanIndex

QUIET = 5.0  # seconds without an object until a kind or namespace is dropped
GONE_STEP = 1.0  # seconds between checks of a kind whose watch got a 404 while discovery still shows it
UNSERVED_STEP = 30.0  # seconds between checks of kinds that are not served

_DEFINITIONS = Resource(
    CRD.group, "v1", CRD.kind, "customresourcedefinitions", namespaced=False, prefix=f"/apis/{CRD.group}/v1"
)


class ServedKinds(Protocol):
    """The part of `RestMapper` that this module needs."""

    def preferred(self, kind: GroupKind) -> Resource | None:
        """The preferred API resource of the kind, None when it is not served."""

    async def serves(self, kind: GroupKind, version: str) -> bool:
        """Ask the API server whether it serves the kind at this version. Raises `ClusterError`."""


class UnusedKinds:
    """Drops unused kinds from the inventory. `on_change` is called when the kinds to watch have changed."""

    def __init__(
        self,
        declared: Declared,
        orphans: OrphanIndex,
        inventory: Inventory,
        watches: Watches,
        kinds: ServedKinds,
        api: ApiClient,
        clock: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        self._declared = declared
        self._orphans = orphans
        self._inventory = inventory
        self._watches = watches
        self._kinds = kinds
        self._api = api
        self._clock = clock
        self._on_change = on_change
        self._quiet: dict[tuple[str, GroupKind], float] = {}
        self._empty: dict[tuple[GroupKind, str], float] = {}  # since when the namespace has no object
        self._unserved: set[GroupKind] = set()
        self._next_look = 0.0

    async def drop(self, sources: Collection[str]) -> float | None:
        """Drop the unused kinds of these sources. Returns the seconds until the next check, None for no check."""
        changed = await self._settle_gone()
        undefined = await self._undefined(sources)
        now = self._clock()
        over: dict[tuple[str, GroupKind], float] = {}
        unserved: set[GroupKind] = set()
        complete = self._complete
        for source in sources:
            for kind in self._inventory.kinds(source).keys() - self._declared.kinds_of(source):
                if self._kinds.preferred(kind) is None:
                    unserved.add(kind)
                    if kind in undefined:
                        self._inventory.drop(source, kind)
                elif kind in complete and not self._orphans.has(source, kind):
                    over[source, kind] = self._quiet.get((source, kind), now)
        for (source, kind), since in list(over.items()):
            if now - since >= QUIET:
                self._inventory.drop(source, kind)
                del over[source, kind]
                changed = True
        changed = changed or bool(undefined or self._unserved - unserved)
        self._quiet, self._unserved = over, unserved - undefined
        self._leave_namespaces(now)
        if changed:
            self._on_change()
        waits = [QUIET - (now - since) for since in (*over.values(), *self._empty.values())]
        waits += [GONE_STEP] * bool(self._orphans.kinds_gone)
        waits += [self._next_look - now] * bool(self._unserved)
        return min(waits, default=None)

    @property
    def _complete(self) -> set[GroupKind]:
        return self._watches.kinds - set(self._watches.unsynced())

    async def _settle_gone(self) -> bool:
        """Ask whether the kinds whose watch got a 404 are served. Returns whether any of them is not.

        A 404 alone proves nothing: it may come from a proxy, and discovery may lag behind.
        """
        found = False
        for kind, resource in list(self._orphans.kinds_gone.items()):
            if self._declared.namespaces(kind) or kind in self._complete:
                del self._orphans.kinds_gone[kind]
                continue
            try:
                served = await self._kinds.serves(kind, resource.version)
            except ClusterError:
                continue  # the next round asks again
            if not served:
                self._orphans.kinds_gone.pop(kind, None)
                found = True
        return found

    async def _undefined(self, sources: Collection[str]) -> set[GroupKind]:
        """Return the kinds that are not served and have no CRD. The deletion of a CRD deletes its objects.

        The API server is asked when a kind is first found not served, then every `UNSERVED_STEP` seconds. Without the
        right to read CRDs the kind stays in the inventory.
        """
        unserved = {
            kind: resource
            for source in sources
            for kind, resource in self._inventory.kinds(source).items()
            if kind not in self._declared.kinds_of(source) and self._kinds.preferred(kind) is None
        }
        if not unserved or (unserved.keys() <= self._unserved and self._clock() < self._next_look):
            return set()
        self._next_look = self._clock() + UNSERVED_STEP
        try:
            await self._kinds.serves(min(unserved), "")  # one request: discovery looks for all of them
        except ClusterError:
            return set()
        found = await asyncio.gather(*map(self._is_defined, unserved.values()))
        return {
            kind
            for kind, defined in zip(unserved, found, strict=True)
            if not defined and self._kinds.preferred(kind) is None
        }

    async def _is_defined(self, resource: Resource) -> bool:
        """Whether the kind has a CRD. True when the answer is not known."""
        try:
            await self._api.read_head(_DEFINITIONS, "", f"{resource.plural}.{resource.group}")
        except ApiError as error:
            return error.code != NOT_FOUND
        except ClusterError:
            pass
        return True

    def _leave_namespaces(self, now: float) -> None:
        """Close the watches of namespaces without declared objects and orphans of the kind.

        Only kinds that are watched namespace by namespace have such watches. A kind that left Git is still watched for
        orphans.
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
