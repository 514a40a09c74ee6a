"""The desired state of all sources: maps each object to the manifest that declares it.

Two sources may declare one object. The source that comes first in the configuration owns it. The order in which
snapshots arrive does not matter, so a restart gives the same result. The declaration of the other source waits. It
takes over when the first source removes its own.

Only the API server knows whether a kind is namespaced. Manifests of a kind that it does not serve (yet) wait under
`unknown_kinds` until `resolve`. A declaration keeps the key under which it was filed. When the declaration is
withdrawn, the kind may no longer be served, or may have another scope.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, KeysView, Sequence
from typing import TypeVar

import msgspec

from driftwatch.drift.object_state import Declaration, ObjectStates, Place
from driftwatch.model import GroupKind, Manifest, ManifestId, ObjectKey

Namespaced = Callable[[GroupKind], bool | None]
Group = TypeVar("Group")
Counted = TypeVar("Counted")


class Conflict(msgspec.Struct, frozen=True):
    """An object that is declared twice, usually by two sources: the owner and the refused declaration."""

    key: ObjectKey
    owner: Declaration
    refused: Declaration


def within(manifests: Sequence[Manifest], namespace: str | None) -> tuple[Sequence[Manifest], list[Manifest]]:
    """Split manifests for a daemon confined to `namespace`: those that it keeps and those that it refuses."""
    if not namespace:
        return manifests, []
    kept = [manifest for manifest in manifests if manifest.namespace == namespace]
    return kept, [manifest for manifest in manifests if manifest.namespace != namespace]


class Declared:
    """The declarations of all sources, stored in the states of their objects.

    `namespaced` returns whether a kind is namespaced, and None if that is unknown.
    """

    def __init__(self, sources: Iterable[str], namespaced: Namespaced) -> None:
        self._order = {name: position for position, name in enumerate(sources)}
        self._namespaced = namespaced
        self._snapshots: dict[str, dict[ManifestId, Manifest]] = {name: {} for name in self._order}
        self.states = ObjectStates()
        self._contended: set[ObjectKey] = set()  # objects that more than one place declares
        self._unknown: dict[GroupKind, set[Place]] = {}
        self._namespaces: dict[GroupKind, Counter[str]] = {}  # of the keys in `_owned`
        self._kinds_of: dict[str, Counter[GroupKind]] = {}  # by source: of the manifests in `_snapshots`
        # Keys of filed declarations that differ from the manifest's id: cluster-scoped kinds whose manifests name a
        # namespace. The others are left out to save memory.
        self._filed: dict[Place, ObjectKey] = {}

    def follow(self, sources: Iterable[str]) -> set[ObjectKey]:
        """Accept declarations of these sources only, in this order. Returns the affected objects."""
        order = {name: position for position, name in enumerate(sources)}
        affected: set[ObjectKey] = set()
        for gone in self._order.keys() - order.keys():
            affected |= self.replace(gone, [])
            del self._snapshots[gone]
        self._order = order
        for name in order:
            self._snapshots.setdefault(name, {})
        for key in self._contended:
            state = self.states.of(key)
            owner, contenders = state.declaration, state.contenders
            if owner is None or contenders is None:
                continue
            first = min((owner.place, *contenders), key=self._rank)
            if first != owner.place:
                state.declaration = contenders.pop(first)
                contenders[owner.place] = owner
                affected.add(key)
        return affected

    def get(self, key: ObjectKey) -> Declaration | None:
        """The declaration in force for the object, None without one."""
        state = self.states.get(key)
        return state.declaration if state is not None else None

    def mentions(self, key: ObjectKey) -> bool:
        """Whether any source declares the object. Includes kinds that the API server is not known to serve."""
        if self.get(key) is not None:
            return True
        waiting = self._unknown.get(key.group_kind, ())
        return any(found.name == key.name and key.namespace in ("", found.namespace) for _, found in waiting)

    def keys(self, kind: GroupKind) -> list[ObjectKey]:
        """Every declared object of the kind."""
        return [key for key, state in self.states.of_kind(kind) if state.declaration is not None]

    def namespaces(self, kind: GroupKind) -> KeysView[str]:
        """Namespaces of the declared objects of the kind. A cluster-scoped object counts under ""."""
        return self._namespaces.get(kind, Counter()).keys()

    def kinds_of(self, source: str) -> KeysView[GroupKind]:
        """Every kind that the source declares, including contested objects and unknown kinds."""
        return self._kinds_of.get(source, Counter()).keys()

    def declarations(self, kind: GroupKind) -> Iterator[Declaration]:
        """The declaration in force of every declared object of the kind."""
        for _, state in self.states.of_kind(kind):
            if state.declaration is not None:
                yield state.declaration

    def places(self) -> Counter[tuple[str, GroupKind, str]]:
        """Number of declared objects by source, kind and namespace."""
        return Counter(
            (state.declaration.source, key.group_kind, key.namespace)
            for key, state in self.states.items()
            if state.declaration is not None
        )

    @property
    def kinds(self) -> list[GroupKind]:
        """Every kind that the API server knows and that has a declared object."""
        return [kind for kind in self.states.kinds() if next(self.declarations(kind), None) is not None]

    @property
    def unknown_kinds(self) -> dict[GroupKind, list[tuple[str, Manifest]]]:
        """Kinds that the API server did not serve at the last lookup, each with its sources and manifests."""
        return {
            kind: [(source, self._snapshots[source][found]) for source, found in sorted(waiting)]
            for kind, waiting in self._unknown.items()
            if waiting
        }

    def manifests(self, source: str) -> dict[ManifestId, Manifest]:
        """The whole snapshot of a source, including contested objects and unknown kinds."""
        return self._snapshots[source]

    def conflicts(self) -> list[Conflict]:
        """One conflict for each refused declaration."""
        found = []
        for key in self._contended:
            state = self.states.of(key)
            if state.declaration is not None and state.contenders is not None:
                found += [Conflict(key, state.declaration, refused) for refused in state.contenders.values()]
        return found

    def change(self, source: str, upserts: Iterable[Manifest], removed: Iterable[ManifestId]) -> set[ObjectKey]:
        """Apply a change of a source. Returns the objects whose manifest in force may have changed or gone."""
        affected: set[ObjectKey] = set()
        snapshot = self._snapshots[source]
        for gone in removed:
            if snapshot.pop(gone, None) is not None:
                _uncount(self._kinds_of, source, GroupKind(gone.group, gone.kind))
                self._withdraw(source, gone, affected)
        for manifest in upserts:
            found = ManifestId(manifest.group, manifest.kind, manifest.namespace, manifest.name)
            filed = self._key_filed(source, found) if found in snapshot else None
            if found not in snapshot:
                self._kinds_of.setdefault(source, Counter())[manifest.group_kind] += 1
            snapshot[found] = manifest
            self._file(source, found, filed, affected)
        return affected

    def replace(self, source: str, manifests: Iterable[Manifest]) -> set[ObjectKey]:
        """Replace the whole snapshot of a source. Manifests that are not in it are removed."""
        new = list(manifests)
        kept = {ManifestId(m.group, m.kind, m.namespace, m.name) for m in new}
        return self.change(source, new, [found for found in self._snapshots[source] if found not in kept])

    def resolve(self, kind: GroupKind) -> set[ObjectKey]:
        """Handle a kind that the API server serves now. Returns the objects that became known or changed their key."""
        affected: set[ObjectKey] = set()
        namespaced = self._namespaced(kind)
        if namespaced is None:
            return affected
        places = self._unknown.get(kind, set()) | {declaration.place for declaration in self.declarations(kind)}
        for _, state in self.states.of_kind(kind):
            places |= (state.contenders or {}).keys()
        for source, found in sorted(places):
            filed = self._key_filed(source, found)
            if filed is None or filed != self._key(found):
                self._file(source, found, filed, affected)
        return affected

    def _key(self, found: ManifestId) -> ObjectKey | None:
        namespaced = self._namespaced(GroupKind(found.group, found.kind))
        if namespaced is None:
            return None
        if namespaced or not found.namespace:
            return found  # the same tuple, to save memory
        return ObjectKey(found.group, found.kind, "", found.name)

    def _key_filed(self, source: str, found: ManifestId) -> ObjectKey | None:
        """The key under which a source's manifest is filed. None while its kind is unknown."""
        if (source, found) in self._unknown.get(GroupKind(found.group, found.kind), ()):
            return None
        return self._filed.get((source, found), found)

    def _rank(self, place: Place) -> tuple[int, ManifestId]:
        source, found = place
        return self._order[source], found

    def _file(self, source: str, found: ManifestId, filed: ObjectKey | None, affected: set[ObjectKey]) -> None:
        """File the source's manifest under its key. `filed` is the key under which it was filed before."""
        key = self._key(found) or filed
        place = source, found
        kind = GroupKind(found.group, found.kind)
        if key is None:
            self._unknown.setdefault(kind, set()).add(place)
            return
        if filed is None:
            self._leave_unknown(kind, place)
        elif filed != key:
            self._withdraw(source, found, affected)
        if key != found:
            self._filed[place] = key
        declaration = Declaration(source, self._snapshots[source][found])
        state = self.states.of(key)
        owner = state.declaration
        if owner is None:
            self._namespaces.setdefault(kind, Counter())[key.namespace] += 1
        if owner is None or owner.place == place:
            state.declaration = declaration
        elif self._rank(place) < self._rank(owner.place):
            self._contend(key, owner)
            state.declaration = declaration
        else:
            self._contend(key, declaration)
            return
        affected.add(key)

    def _contend(self, key: ObjectKey, refused: Declaration) -> None:
        state = self.states.of(key)
        state.contenders = {**(state.contenders or {}), refused.place: refused}
        self._contended.add(key)

    def _withdraw(self, source: str, found: ManifestId, affected: set[ObjectKey]) -> None:
        place = source, found
        kind = GroupKind(found.group, found.kind)
        if self._leave_unknown(kind, place):
            return
        key = self._filed.pop(place, found)
        state = self.states.of(key)
        contenders = state.contenders or {}
        if contenders.pop(place, None) is None:
            state.declaration = contenders.pop(min(contenders, key=self._rank)) if contenders else None
            if state.declaration is None:
                _uncount(self._namespaces, kind, key.namespace)
            affected.add(key)
        if not contenders:
            state.contenders = None
            self._contended.discard(key)

    def _leave_unknown(self, kind: GroupKind, place: Place) -> bool:
        unknown = self._unknown.get(kind)
        if unknown is None or place not in unknown:
            return False
        unknown.discard(place)
        if not unknown:
            del self._unknown[kind]
        return True


def _uncount(counts: dict[Group, Counter[Counted]], group: Group, counted: Counted) -> None:
    """Decrement a count. Delete it when it reaches zero."""
    counts[group][counted] -= 1
    if not counts[group][counted]:
        del counts[group][counted]
    if not counts[group]:
        del counts[group]
