"""What Git declares, merged over the sources: which object is declared by which manifest.

An object that two sources declare belongs to the one that stands first in the configuration, whatever the order in
which snapshots arrive, so that a restart decides as before. The other source's claim waits, and takes over when the
first drops its own.

Whether a kind has namespaces is known to the API server alone. Manifests of a kind that it does not serve (yet) wait
under `unknown_kinds` until `resolve`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from driftwatch.model import GroupKind, Manifest, ManifestId, ObjectKey

Namespaced = Callable[[GroupKind], bool | None]


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A source's declaration of an object."""

    source: str
    manifest: Manifest


class Conflict(msgspec.Struct, frozen=True):
    """An object that two sources declare: who keeps it and who is refused."""

    key: ObjectKey
    owner: Claim
    refused: Claim


def within(manifests: Sequence[Manifest], namespace: str | None) -> tuple[Sequence[Manifest], list[Manifest]]:
    """Manifests that a daemon which is confined to `namespace` keeps, and those that it refuses."""
    if not namespace:
        return manifests, []
    kept = [manifest for manifest in manifests if manifest.namespace == namespace]
    return kept, [manifest for manifest in manifests if manifest.namespace != namespace]


class Declared:
    """The claims of all sources. `namespaced` says of a kind whether it has namespaces, None where nobody knows."""

    def __init__(self, sources: Iterable[str], namespaced: Namespaced) -> None:
        self._order = {name: position for position, name in enumerate(sources)}
        self._namespaced = namespaced
        self._snapshots: dict[str, dict[ManifestId, Manifest]] = {name: {} for name in self._order}
        self._owned: dict[GroupKind, dict[ObjectKey, Claim]] = {}
        self._waiting: dict[ObjectKey, dict[str, Claim]] = {}
        self._unknown: dict[GroupKind, set[tuple[str, ManifestId]]] = {}

    def follow(self, sources: Iterable[str]) -> set[ObjectKey]:
        """Take claims of these sources, in this order, and of no others. Returns the objects that are affected."""
        order = {name: position for position, name in enumerate(sources)}
        affected: set[ObjectKey] = set()
        for gone in self._order.keys() - order.keys():
            affected |= self.replace(gone, [])
            del self._snapshots[gone]
        self._order = order
        for name in order:
            self._snapshots.setdefault(name, {})
        for key, waiting in list(self._waiting.items()):
            owner = self._owned[key.group_kind][key]
            first = min((owner.source, *waiting), key=lambda name: order[name])
            if first != owner.source:
                self._owned[key.group_kind][key] = waiting.pop(first)
                waiting[owner.source] = owner
                affected.add(key)
        return affected

    def get(self, key: ObjectKey) -> Claim | None:
        """Who declares the object, and how."""
        kind = self._owned.get(key.group_kind)
        return kind.get(key) if kind else None

    def mentions(self, key: ObjectKey) -> bool:
        """Whether any source declares the object, also one of a kind that the API server is not known to serve."""
        if self.get(key) is not None:
            return True
        waiting = self._unknown.get(key.group_kind, ())
        return any(found.name == key.name and key.namespace in ("", found.namespace) for _, found in waiting)

    def manifest(self, key: ObjectKey) -> Manifest | None:
        """The manifest in force for the object."""
        claim = self.get(key)
        return claim.manifest if claim else None

    def keys(self, kind: GroupKind) -> list[ObjectKey]:
        """Every declared object of the kind."""
        return list(self._owned.get(kind, ()))

    def claims(self, kind: GroupKind) -> Iterator[Claim]:
        """The claim in force of every declared object of the kind."""
        yield from self._owned.get(kind, {}).values()

    def places(self) -> Counter[tuple[str, GroupKind, str]]:
        """How many objects each source declares of each kind in each namespace."""
        return Counter(
            (claim.source, kind, key.namespace) for kind, owned in self._owned.items() for key, claim in owned.items()
        )

    @property
    def kinds(self) -> list[GroupKind]:
        """Every kind of which an object is declared and that is known to the API server."""
        return [kind for kind, owned in self._owned.items() if owned]

    @property
    def unknown_kinds(self) -> dict[GroupKind, list[tuple[str, Manifest]]]:
        """Kinds that the API server did not know when they were last looked for, with who declares them."""
        return {
            kind: [(source, self._snapshots[source][found]) for source, found in sorted(waiting)]
            for kind, waiting in self._unknown.items()
            if waiting
        }

    def manifests(self, source: str) -> dict[ManifestId, Manifest]:
        """The whole snapshot of a source, contested and unknown included."""
        return self._snapshots[source]

    def conflicts(self) -> list[Conflict]:
        """Every object that more than one source declares."""
        found = []
        for key, waiting in self._waiting.items():
            owner = self.get(key)
            if owner is not None:
                found += [Conflict(key, owner, refused) for refused in waiting.values()]
        return found

    def change(self, source: str, upserts: Iterable[Manifest], removed: Iterable[ManifestId]) -> set[ObjectKey]:
        """Take a source's change in. Returns the objects whose manifest in force may be another one now, or gone."""
        affected: set[ObjectKey] = set()
        for gone in removed:
            manifest = self._snapshots[source].pop(gone, None)
            if manifest is not None:
                self._withdraw(source, gone, affected)
        for manifest in upserts:
            found = ManifestId(manifest.group, manifest.kind, manifest.namespace, manifest.name)
            self._snapshots[source][found] = manifest
            self._claim(source, found, manifest, affected)
        return affected

    def replace(self, source: str, manifests: Iterable[Manifest]) -> set[ObjectKey]:
        """Take a source's whole snapshot in: what is not in it is removed."""
        new = list(manifests)
        kept = {ManifestId(m.group, m.kind, m.namespace, m.name) for m in new}
        return self.change(source, new, [found for found in self._snapshots[source] if found not in kept])

    def resolve(self, kind: GroupKind) -> set[ObjectKey]:
        """The API server serves this kind now. Returns the objects that became known."""
        affected: set[ObjectKey] = set()
        for source, found in self._unknown.pop(kind, set()):
            self._claim(source, found, self._snapshots[source][found], affected)
        return affected

    def _key(self, found: ManifestId) -> ObjectKey | None:
        namespaced = self._namespaced(GroupKind(found.group, found.kind))
        if namespaced is None:
            return None
        if namespaced or not found.namespace:
            return found  # the same tuple, for memory's sake
        return ObjectKey(found.group, found.kind, "", found.name)

    def _claim(self, source: str, found: ManifestId, manifest: Manifest, affected: set[ObjectKey]) -> None:
        key = self._key(found)
        if key is None:
            self._unknown.setdefault(GroupKind(found.group, found.kind), set()).add((source, found))
            return
        claim = Claim(source, manifest)
        owned = self._owned.setdefault(key.group_kind, {})
        owner = owned.get(key)
        if owner is None or owner.source == source:
            owned[key] = claim
        elif self._order[source] < self._order[owner.source]:
            self._waiting.setdefault(key, {})[owner.source] = owner
            owned[key] = claim
        else:
            self._waiting.setdefault(key, {})[source] = claim
            return
        affected.add(key)

    def _withdraw(self, source: str, found: ManifestId, affected: set[ObjectKey]) -> None:
        key = self._key(found)
        self._unknown.get(GroupKind(found.group, found.kind), set()).discard((source, found))
        if key is None:
            return
        waiting = self._waiting.get(key, {})
        waiting.pop(source, None)
        owner = self.get(key)
        if owner is not None and owner.source == source:
            owned = self._owned[key.group_kind]
            if waiting:
                heir = min(waiting, key=lambda name: self._order[name])
                owned[key] = waiting.pop(heir)
            else:
                del owned[key]
            affected.add(key)
        if not waiting:
            self._waiting.pop(key, None)
