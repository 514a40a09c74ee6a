"""Finds out when nothing is left of a kind that Git declares no more, so that it need not be watched for ever.

A kind is dropped when its watch is complete and shows no object of the source, and does so for a while: an apply that
was on its way when Git dropped the last object may still create it.
"""

from collections.abc import Callable, Iterable

from driftwatch.cluster.watch_manager import Watches
from driftwatch.drift.desired_state import Declared
from driftwatch.model import GroupKind
from driftwatch.state.inventory import Inventory
from driftwatch.state.orphan_index import Orphans

QUIET = 5.0  # seconds


class UnusedKinds:
    """Drops from the inventory what is not needed in it any more."""

    def __init__(
        self,
        declared: Declared,
        orphans: Orphans,
        inventory: Inventory,
        watches: Watches,
        clock: Callable[[], float],
    ) -> None:
        self._declared = declared
        self._orphans = orphans
        self._inventory = inventory
        self._watches = watches
        self._clock = clock
        self._quiet: dict[tuple[str, GroupKind], float] = {}
        self._empty: dict[tuple[GroupKind, str], float] = {}  # namespaces that a kind's watches need not cover, since

    def drop(self, sources: Iterable[str]) -> tuple[float | None, bool]:
        """Drop what is over. Returns the seconds until the next look, None for no need, and whether anything went."""
        now = self._clock()
        over: dict[tuple[str, GroupKind], float] = {}
        dropped = False
        complete = self._watches.kinds - set(self._watches.unsynced())
        for source in sources:
            declared = {manifest.group_kind for manifest in self._declared.manifests(source).values()}
            for kind in self._inventory.kinds(source).keys() - declared:
                if kind in self._orphans.kinds_gone:
                    self._inventory.drop(source, kind)
                    dropped = True
                elif kind in complete and not self._orphans.has(source, kind):
                    over[source, kind] = self._quiet.get((source, kind), now)
        for (source, kind), since in list(over.items()):
            if now - since >= QUIET:
                self._inventory.drop(source, kind)
                del over[source, kind]
                dropped = True
        self._orphans.kinds_gone.clear()
        self._quiet = over
        self._leave_namespaces(now)
        waits = [QUIET - (now - since) for since in (*over.values(), *self._empty.values())]
        return min(waits, default=None), dropped

    def _leave_namespaces(self, now: float) -> None:
        """Close the watches of namespaces in which nothing of the kind is declared or left.

        Only a kind that is watched namespace by namespace has any; one that Git left is still watched for orphans.
        """
        empty: dict[tuple[GroupKind, str], float] = {}
        for kind, watch in self._watches.of_kinds.items():
            if watched := watch.namespaces:
                needed = {key.namespace for key in self._declared.keys(kind)}
                if needed:
                    needed |= self._orphans.namespaces(kind)
                    for namespace in watched - needed:
                        empty[kind, namespace] = self._empty.get((kind, namespace), now)
        for kind, namespace in [place for place, since in empty.items() if now - since >= QUIET]:
            self._watches.leave(kind, [namespace])
            del empty[kind, namespace]
        self._empty = empty
