"""Finds orphans in the cluster and says whether the daemon would prune them.

The decision is the daemon's, based on the current state only. The daemon also waits whether another source takes an
object over and whether Git stays unchanged. This module does not wait.
"""

from collections.abc import Collection

from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ClusterError
from driftwatch.cluster.rest_mapper import RestMapper
from driftwatch.config import Config
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.orphan import Orphan, PrunePolicy, kept_because, mode_of, read, taken_along
from driftwatch.model import SOURCE_LABEL, DriftType, GroupKind, Mode, ObjectKey
from driftwatch.oneshot.diff.results import Difference, Trouble
from driftwatch.oneshot.diff.retry import with_retries
from driftwatch.state.inventory import Inventory


class OrphanFinder:
    """Finds orphans of a configuration's sources. Read-only."""

    def __init__(self, config: Config, declared: Declared, kinds: RestMapper, api: ApiClient) -> None:
        self._pruning = config.pruning()
        self._policies = config.policies()
        self._declared = declared
        self._kinds = kinds
        self._api = api
        self._inventory = Inventory(api, config.inventory.namespace)
        self._found: dict[ObjectKey, Orphan] = {}
        self.troubles: list[Trouble] = []

    async def find(self, sources: Collection[str]) -> None:
        """List every kind of which these sources declare or once declared an object."""
        await self._inventory.load(sources)
        kinds = self._declared.kinds + list(self._inventory.resources(sources))
        for kind in dict.fromkeys(kinds):
            resource = self._kinds.preferred(kind)
            if resource is None:  # no objects either
                continue
            try:
                await self._list(kind, resource, sources)
            except ClusterError as error:
                self.troubles.append(Trouble(f"{kind}: what left Git cannot be looked for: {error}", ""))

    async def _list(self, kind: GroupKind, resource: Resource, sources: Collection[str]) -> None:
        for head, raw in await with_retries(lambda: self._api.list_metadata(resource, labels=SOURCE_LABEL)):
            key = ObjectKey(*kind, head.metadata.namespace, head.metadata.name)
            orphan = None if self._declared.mentions(key) else read(key, raw, 0.0)
            if orphan is not None and orphan.source in sources:
                self._found[key] = orphan

    def differences(self, invalid: dict[str, int]) -> list[Difference]:
        """Return the orphans for display. `invalid` is the number of unreadable documents per source."""
        modes = {key: mode_of(key, orphan, self._policies) for key, orphan in self._found.items()}
        kept = {
            key: kept_because(key.group_kind, orphan, self._pruning[orphan.source], modes[key])
            for key, orphan in self._found.items()
        }
        stays = [key for kind in self._declared.kinds for key in self._declared.keys(kind)]
        stays += [key for key, why in kept.items() if why]
        leaving = [key for key, why in kept.items() if not why]
        for key, along in taken_along(leaving, stays, self._crd_of).items():
            kept[key] = f"{along} would go with it"
        going = [self._found[key].source for key, why in kept.items() if not why]
        held = {source: self._held(source, going.count(source), invalid.get(source, 0)) for source in set(going)}
        return [
            Difference(
                key, orphan.source, "", 0, str(modes[key]), DriftType.ORPHANED, note=_note(kept[key], held, orphan)
            )
            for key, orphan in self._found.items()
            if modes[key] not in (Mode.PAUSED, Mode.IGNORE)
        ]

    def _held(self, source: str, count: int, invalid: int) -> str:
        policy: PrunePolicy = self._pruning[source]
        stay = len(self._declared.manifests(source))
        if invalid:
            return f"documents of the source that cannot be read: {invalid}"
        if not stay:
            return "the source declares nothing at all"
        return f"{count} at once are over pruneLimit" if policy.is_too_much(count, stay) else ""

    def _crd_of(self, kind: GroupKind) -> str:
        resource = self._kinds.preferred(kind)
        return f"{resource.plural}.{resource.group}" if resource else ""


def _note(kept: str, held: dict[str, str], orphan: Orphan) -> str:
    if kept:
        return f"it left Git, and stays: {kept}"
    if why := held[orphan.source]:
        return f"it left Git, and is not pruned yet: {why}"
    return "it left Git, and is pruned"
