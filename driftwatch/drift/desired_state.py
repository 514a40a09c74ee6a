"""What Git declares, merged over the sources: which object is declared by which manifest.

An object that two sources declare belongs to the one that stands first in the configuration, whatever the order in
which snapshots arrive, so that a restart decides as before. The other source's claim waits, and takes over when the
first drops its own.

Whether a kind has namespaces is known to the API server alone. Manifests of a kind that it does not serve (yet) wait
under `unknown_kinds` until `resolve`. A claim keeps the key under which it was filed: the kind may not be served, or in
another scope, when the claim is withdrawn.
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
    """An object that is declared twice, mostly by two sources: who keeps it and who is refused."""

    key: ObjectKey
    owner: Declaration
    refused: Declaration


def within(manifests: Sequence[Manifest], namespace: str | None) -> tuple[Sequence[Manifest], list[Manifest]]:
    """Manifests that a daemon which is confined to `namespace` keeps, and those that it refuses."""
    if not namespace:
        return manifests, []
    kept = [manifest for manifest in manifests if manifest.namespace == namespace]
    return kept, [manifest for manifest in manifests if manifest.namespace != namespace]


class Declared:
    """The declarations of all sources, filed in the states of their objects.

    `namespaced` says of a kind whether it has namespaces, None where that is not known.
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
        # The keys of filed claims, where they are not the manifest's id itself: those of kinds without namespaces whose
        # manifests name one. All others would cost memory for nothing.
        self._filed: dict[Place, ObjectKey] = {}

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
        """Who declares the object, and how."""
        state = self.states.get(key)
        return state.declaration if state is not None else None

    def mentions(self, key: ObjectKey) -> bool:
        """Whether any source declares the object, also one of a kind that the API server is not known to serve."""
        if self.get(key) is not None:
            return True
        waiting = self._unknown.get(key.group_kind, ())
        return any(found.name == key.name and key.namespace in ("", found.namespace) for _, found in waiting)

    def manifest(self, key: ObjectKey) -> Manifest | None:
        """The manifest in force for the object."""
        declaration = self.get(key)
        return declaration.manifest if declaration else None

    def keys(self, kind: GroupKind) -> list[ObjectKey]:
        """Every declared object of the kind."""
        return [key for key, state in self.states.of_kind(kind) if state.declaration is not None]

    def namespaces(self, kind: GroupKind) -> KeysView[str]:
        """Namespaces of the declared objects of the kind, "" among them for one without."""
        return self._namespaces.get(kind, Counter()).keys()

    def kinds_of(self, source: str) -> KeysView[GroupKind]:
        """Every kind that the source declares, contested and unknown included."""
        return self._kinds_of.get(source, Counter()).keys()

    def declarations(self, kind: GroupKind) -> Iterator[Declaration]:
        """The claim in force of every declared object of the kind."""
        for _, state in self.states.of_kind(kind):
            if state.declaration is not None:
                yield state.declaration

    def places(self) -> Counter[tuple[str, GroupKind, str]]:
        """How many objects each source declares of each kind in each namespace."""
        return Counter(
            (state.declaration.source, key.group_kind, key.namespace)
            for key, state in self.states.items()
            if state.declaration is not None
        )

    @property
    def kinds(self) -> list[GroupKind]:
        """Every kind of which an object is declared and that is known to the API server."""
        return [kind for kind in self.states.kinds() if next(self.declarations(kind), None) is not None]

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
        """Every object that is declared more than once."""
        found = []
        for key in self._contended:
            state = self.states.of(key)
            if state.declaration is not None and state.contenders is not None:
                found += [Conflict(key, state.declaration, refused) for refused in state.contenders.values()]
        return found

    def change(self, source: str, upserts: Iterable[Manifest], removed: Iterable[ManifestId]) -> set[ObjectKey]:
        """Take a source's change in. Returns the objects whose manifest in force may be another one now, or gone."""
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
        """Take a source's whole snapshot in: what is not in it is removed."""
        new = list(manifests)
        kept = {ManifestId(m.group, m.kind, m.namespace, m.name) for m in new}
        return self.change(source, new, [found for found in self._snapshots[source] if found not in kept])

    def resolve(self, kind: GroupKind) -> set[ObjectKey]:
        """The API server serves this kind now. Returns the objects that became known, or have another key now."""
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
            return found  # the same tuple, for memory's sake
        return ObjectKey(found.group, found.kind, "", found.name)

    def _key_filed(self, source: str, found: ManifestId) -> ObjectKey | None:
        """The key under which a source's manifest counts; None while its kind is unknown."""
        if (source, found) in self._unknown.get(GroupKind(found.group, found.kind), ()):
            return None
        return self._filed.get((source, found), found)

    def _rank(self, place: Place) -> tuple[int, ManifestId]:
        source, found = place
        return self._order[source], found

    def _file(self, source: str, found: ManifestId, filed: ObjectKey | None, affected: set[ObjectKey]) -> None:
        """Have the source's manifest count under its key. `filed` is the key under which it counted before."""
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
    """Count one less, and forget what comes to zero."""
    counts[group][counted] -= 1
    if not counts[group][counted]:
        del counts[group][counted]
    if not counts[group]:
        del counts[group]
